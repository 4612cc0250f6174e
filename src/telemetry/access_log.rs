//! Access log. Workers add lines to a buffer, and one thread writes them, so that a slow reader never delays a request.

use std::io::Write as _;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Maximum size of the buffer, 8 MiB. Further lines are lost, and counted.
const MAX_BUFFERED: usize = 8 * 1024 * 1024;

/// Interval in which lines are written together, 20 ms.
const BATCH_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    arrived: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// Whether the writer is writing lines that it took from the buffer.
    writing: bool,
}

/// Handle of the access log.
#[derive(Debug, Clone)]
pub struct AccessLog(Arc<Shared>);

impl AccessLog {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = shared.clone();
        thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.write_forever())?;
        Ok(Self(shared))
    }

    /// Adds what `line` writes. Returns whether the buffer had space for it.
    pub fn add(&self, line: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut buffer = self.0.lock();
        if buffer.bytes.len() > MAX_BUFFERED {
            return false;
        }
        let was_empty = buffer.bytes.is_empty();
        line(&mut buffer.bytes);
        drop(buffer);
        if was_empty {
            self.0.arrived.notify_one();
        }
        true
    }

    /// Waits until all lines are written, at most `timeout`.
    pub fn flush(&self, timeout: Duration) {
        let mut buffer = self.0.lock();
        let busy = |buffer: &mut Buffer| buffer.writing || !buffer.bytes.is_empty();
        self.0.written.wait_while_for(&mut buffer, busy, timeout);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock()
    }

    #[expect(clippy::disallowed_methods, reason = "this thread only writes the access log")]
    fn write_forever(&self) {
        let mut batch = Vec::new();
        loop {
            self.arrived.wait_while(&mut self.lock(), |buffer| buffer.bytes.is_empty());
            thread::sleep(BATCH_INTERVAL);
            {
                let mut buffer = self.lock();
                std::mem::swap(&mut batch, &mut buffer.bytes);
                buffer.writing = true;
            }
            // Nobody can receive an error about a closed standard output.
            let _ = std::io::stdout().lock().write_all(&batch).and_then(|()| std::io::stdout().flush());
            batch.clear();
            self.lock().writing = false;
            self.written.notify_all();
        }
    }
}
