//! A TCP proxy between a gateway and its store, that can be made slow, held or cut.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

const CUT: u64 = u64::MAX;
const HELD: u64 = u64::MAX - 1;

/// A proxy to one port.
pub struct Proxy {
    pub port: u16,
    /// Milliseconds that each packet takes longer; or held, or cut.
    delay: Arc<AtomicU64>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let (delay, open) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (delayed, opened) = (delay.clone(), open.clone());
        std::thread::spawn(move || {
            for caller in listener.incoming().map_while(Result::ok) {
                if delayed.load(Ordering::Relaxed) == CUT {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                for (from, to) in [(&caller, &server), (&server, &caller)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    to.set_nodelay(true).unwrap();
                    let delay = delayed.clone();
                    std::thread::spawn(move || pass(from, to, &delay));
                }
                opened.lock().extend([caller, server]);
            }
        });
        Self { port: own, delay, open }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on each packet takes so much longer, each way.
    pub fn slow(&self, delay: Duration) {
        self.delay.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// Keeps each packet until all is as before.
    pub fn hold(&self) {
        self.delay.store(HELD, Ordering::Relaxed);
    }

    /// Cuts what is open, and lets nothing through.
    pub fn cut(&self) {
        self.delay.store(CUT, Ordering::Relaxed);
        self.open.lock().drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    /// All is as before.
    pub fn mend(&self) {
        self.slow(Duration::ZERO);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, delay: &AtomicU64) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        while delay.load(Ordering::Relaxed) == HELD {
            std::thread::sleep(Duration::from_millis(1));
        }
        let delay = delay.load(Ordering::Relaxed);
        if delay == CUT {
            break;
        }
        std::thread::sleep(Duration::from_millis(delay));
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
