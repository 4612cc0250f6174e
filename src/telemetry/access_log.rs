//! Access log: workers add lines, and a thread of its own writes them, so that a slow reader never slows a request.

use std::io::Write as _;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Bytes that wait for a slow reader before lines are lost, and counted as lost.
const MOST_WAITING: usize = 8 * 1024 * 1024;

/// How long lines are gathered before they are written together.
const GATHER: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Whether the writer holds bytes that are not written yet.
    writing: bool,
}

/// The way into the access log.
#[derive(Debug, Clone)]
pub struct AccessLog(Arc<Shared>);

impl AccessLog {
    /// Starts the writer.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = shared.clone();
        thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.write_forever())?;
        Ok(Self(shared))
    }

    /// Adds what `line` writes. Answers whether there was room for it.
    pub fn add(&self, line: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut waiting = self.0.lock();
        if waiting.bytes.len() > MOST_WAITING {
            return false;
        }
        let was_empty = waiting.bytes.is_empty();
        line(&mut waiting.bytes);
        drop(waiting);
        if was_empty {
            self.0.arrived.notify_one();
        }
        true
    }

    /// Waits until all that was added is written, at most `patience`.
    pub fn flush(&self, patience: Duration) {
        let mut waiting = self.0.lock();
        let busy = |waiting: &mut Waiting| waiting.writing || !waiting.bytes.is_empty();
        self.0.written.wait_while_for(&mut waiting, busy, patience);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }

    #[expect(clippy::disallowed_methods, reason = "this thread only writes the access log")]
    fn write_forever(&self) {
        let mut batch = Vec::new();
        loop {
            self.arrived.wait_while(&mut self.lock(), |waiting| waiting.bytes.is_empty());
            thread::sleep(GATHER);
            {
                let mut waiting = self.lock();
                std::mem::swap(&mut batch, &mut waiting.bytes);
                waiting.writing = true;
            }
            // Standard output that is closed cannot be told so to anyone.
            let _ = std::io::stdout().lock().write_all(&batch).and_then(|()| std::io::stdout().flush());
            batch.clear();
            self.lock().writing = false;
            self.written.notify_all();
        }
    }
}
