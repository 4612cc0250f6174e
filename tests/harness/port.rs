//! Free ports for servers that cannot choose a port, or that restart on the same one.

use std::net::{TcpListener, UdpSocket};

use parking_lot::Mutex;

/// Ports below the range from which Linux assigns ports to outgoing connections and to `bind` with port 0
/// (`ip_local_port_range`).
const RANGE: std::ops::Range<u16> = 20_000..30_000;

/// UDP sockets on these ports. Each reserves its port for this process, also while no server listens on it.
static RESERVED: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// Returns an unused port and reserves it until the process ends.
pub fn free_port() -> u16 {
    let mut reserved = RESERVED.lock();
    // Test processes begin at different ports, so that they rarely meet.
    let first = std::process::id().wrapping_mul(37) as usize;
    let ports = RANGE.cycle().skip(first % RANGE.len()).take(RANGE.len());
    let free = |port: &u16| {
        let Ok(socket) = UdpSocket::bind(("127.0.0.1", *port)) else { return false };
        let unused = TcpListener::bind(("127.0.0.1", *port)).is_ok();
        if unused {
            reserved.push(socket);
        }
        unused
    };
    ports.into_iter().find(free).expect("a free port from 20000 to 29999")
}
