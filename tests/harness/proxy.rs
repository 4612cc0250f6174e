//! TCP proxy between a gateway and its store that delays, holds or cuts connections.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

const CUT: u64 = u64::MAX;
const HELD: u64 = u64::MAX - 1;

/// TCP proxy to one port.
pub struct Proxy {
    pub port: u16,
    /// Delay of each packet in milliseconds, or [`HELD`] or [`CUT`].
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

    /// Delays each packet, in both directions.
    pub fn slow(&self, delay: Duration) {
        self.delay.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// Holds all packets until [`Proxy::mend`].
    pub fn hold(&self) {
        self.delay.store(HELD, Ordering::Relaxed);
    }

    /// Closes all connections, and forwards nothing until [`Proxy::mend`].
    pub fn cut(&self) {
        self.delay.store(CUT, Ordering::Relaxed);
        self.open.lock().drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    /// Forwards without delay again.
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
