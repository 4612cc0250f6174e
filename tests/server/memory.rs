//! Memory of an open connection without a request.

use crate::harness::{Gateway, Setup, Upstream, eventually};

/// Number of connections in one measurement.
const CONNECTIONS: u64 = 200;

/// Returns the private memory of the gateway in KiB.
///
/// It excludes the program file, because its share (Pss) depends on the other gateways that run.
fn memory(gateway: &Gateway) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", gateway.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Returns the memory for each of [`CONNECTIONS`] in KiB. Each client sends `first`, and then `next`, and waits.
fn cost(first: &[u8], next: &[u8]) -> u64 {
    let upstream = Upstream::start();
    let limits = "[limits]\nfirst_byte = \"1h\"\nhead = \"1h\"\nidle = \"1h\"";
    let gateway = Setup::to(&upstream.base_url()).with(limits).workers(1).start();
    let connect = |n: u64| {
        let mut clients: Vec<_> = (0..n).map(|_| gateway.connect()).collect();
        for client in &mut clients {
            client.send(first);
            if !next.is_empty() {
                assert!(!client.is_closed());
                client.send(next);
            }
        }
        clients
    };
    let settled = || {
        let (mut last, mut same) = (0, 0);
        eventually("memory that stays", || {
            let now = memory(&gateway);
            same = if now == last { same + 1 } else { 0 };
            last = now;
            (same == 20).then_some(now)
        })
    };
    let _first = connect(20);
    let before = settled();
    let _others = connect(CONNECTIONS);
    eventually("all connections", || (gateway.metric("calgate_connections", "") == CONNECTIONS + 20).then_some(()));
    settled().saturating_sub(before) / CONNECTIONS
}

#[test]
fn a_connection_that_brings_no_request_costs_little() {
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    // In this frame, each field is one byte, and h2 uses much more memory for it.
    let frame = |size: u16, flags: u8| {
        let [high, low] = size.to_be_bytes();
        let mut frame = vec![0, high, low, 1, flags, 0, 0, 0, 1, 0x82, 0x86, 0x84];
        frame.resize(usize::from(size) + 9, 0x90);
        frame
    };
    // A field block without its end, and a frame without its end.
    let block = |size| frame(size, 0);
    let cut = |size: u16| frame(size, 4)[..usize::from(size)].to_vec();
    let both = |next: Vec<u8>| [&http2[..], &next].concat();
    let (none, k) = (Vec::new(), 1024);
    for (what, first, next, most) in [
        ("silent", none.clone(), none.clone(), 6),
        ("one byte", b"G".to_vec(), none.clone(), 16),
        ("half a head", b"GET /v2/me HTTP/1.1\r\nHost: h\r\n".to_vec(), none.clone(), 16),
        ("an idle HTTP/2 connection", http2.to_vec(), none.clone(), 32),
        ("an unfinished field block of 2 KiB", both(block(2 * k)), none.clone(), 32),
        ("an unfinished field block of 8 KiB", both(block(8 * k)), none.clone(), 32),
        ("an unfinished field block of 16 KiB", both(block(16 * k)), none.clone(), 40),
        ("an unfinished field block of 8 KiB later on", http2.to_vec(), block(8 * k), 32),
        ("an unfinished field block of 16 KiB later on", http2.to_vec(), block(16 * k), 40),
        ("an unfinished frame of 8 KiB", both(cut(8 * k)), none.clone(), 32),
        ("an unfinished frame of 16 KiB", both(cut(16 * k)), none.clone(), 36),
    ] {
        let cost = cost(&first, &next);
        println!("{what}: {cost} KiB of {most}");
        assert!(cost <= most, "{what}: {cost} KiB of {most}");
    }
}
