//! The memory that an open connection costs while it brings no request.

use crate::harness::{Gateway, Setup, Upstream, eventually};

/// Connections that are measured together.
const CONNECTIONS: u64 = 200;

/// Memory of the gateway's own, in KiB.
fn memory(gateway: &Gateway) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", gateway.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Memory for each of [`CONNECTIONS`] that send `first` and wait, in KiB.
fn cost(first: &[u8]) -> u64 {
    let upstream = Upstream::start();
    let limits = "[limits]\nfirst_byte = \"1h\"\nhead = \"1h\"\nidle = \"1h\"";
    let gateway = Setup::to(&upstream.base_url()).with(limits).workers(1).start();
    let connect = |n: u64| {
        let mut clients: Vec<_> = (0..n).map(|_| gateway.connect()).collect();
        for client in &mut clients {
            client.send(first);
        }
        clients
    };
    let settled = || {
        let mut last = 0;
        eventually("memory that stays", || {
            std::thread::sleep(std::time::Duration::from_millis(100));
            let now = memory(&gateway);
            (std::mem::replace(&mut last, now) == now).then_some(now)
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
    // A field block of 2 KiB without its end: each field is one byte, and costs h2 much more.
    let block = [&http2[..], b"\0\x08\0\x01\0\0\0\0\x01\x82\x86\x84", &[0x90; 2048 - 3]].concat();
    for (what, first, most) in [
        ("silent", &b""[..], 6),
        ("one byte", b"G", 16),
        ("half a head", b"GET /v2/me HTTP/1.1\r\nHost: h\r\n", 16),
        ("an idle HTTP/2 connection", http2, 32),
        ("an unfinished field block", &block, 32),
    ] {
        let cost = cost(first);
        assert!(cost <= most, "{what}: {cost} KiB of {most}");
    }
}
