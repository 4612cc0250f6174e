//! Pooled connections that Cal.com has closed: which requests calgate repeats, and which it never repeats.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Gateway, Key, OK, Setup, Upstream, eventually};

fn start(upstream: &Upstream, key: &Key) -> Gateway {
    // One worker, so that a second request finds the connection of the first.
    Setup::to(&upstream.base_url())
        .with("[limits]\nupstream_headers = \"2s\"\n[budget]\nmode = \"off\"")
        .billing("teams", key)
        .workers(1)
        .start()
}

fn bearer(key: &Key) -> String {
    format!("Authorization: Bearer {}", key.text)
}

/// Answers the first request, and closes the first connection at the second.
fn closes_at_the_second() -> Upstream {
    let requests = AtomicUsize::new(0);
    Upstream::answering(move |asked| match (requests.fetch_add(1, Ordering::Relaxed), asked.connection) {
        (0, _) => OK.into(),
        (_, 0) => Vec::new(),
        _ => OK.into(),
    })
}

#[test]
fn a_get_without_a_byte_of_a_response_is_sent_again_on_a_new_connection() {
    let (upstream, key) = (closes_at_the_second(), Key::new());
    let gateway = start(&upstream, &key);
    for _ in 0..2 {
        assert_eq!(gateway.ask("GET /v2/me", &[&bearer(&key)]).status, 200);
    }
    let connections: Vec<_> = upstream.requests().iter().map(|asked| asked.connection).collect();
    assert_eq!(connections, [0, 0, 1]);
}

#[test]
fn a_post_that_was_written_is_never_sent_again() {
    let (upstream, key) = (closes_at_the_second(), Key::new());
    let gateway = start(&upstream, &key);
    assert_eq!(gateway.ask("GET /v2/me", &[&bearer(&key)]).status, 200);
    let answer = gateway.connect().ask_with("POST /v2/bookings", &[&bearer(&key)], "{}");
    assert_eq!((answer.status, answer.code()), (502, Some("GATEWAY_UPSTREAM_UNREACHABLE")));
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn a_get_with_a_partial_response_is_never_sent_again() {
    let requests = AtomicUsize::new(0);
    let upstream = Upstream::answering(move |_| match requests.fetch_add(1, Ordering::Relaxed) {
        0 => OK.into(),
        // No such status line: the connection is of no more use.
        _ => b"HTTP/1.1 2".to_vec(),
    });
    let key = Key::new();
    let gateway = start(&upstream, &key);
    assert_eq!(gateway.ask("GET /v2/me", &[&bearer(&key)]).status, 200);
    let answer = gateway.ask("GET /v2/me", &[&bearer(&key)]);
    assert_eq!((answer.status, answer.code()), (504, Some("GATEWAY_UPSTREAM_TIMEOUT")));
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn a_request_on_a_new_connection_that_breaks_is_not_repeated() {
    let (upstream, key) = (Upstream::answering(|_| Vec::new()), Key::new());
    let gateway = start(&upstream, &key);
    let answer = gateway.ask("GET /v2/me", &[&bearer(&key)]);
    assert_eq!((answer.status, answer.code()), (502, Some("GATEWAY_UPSTREAM_UNREACHABLE")));
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn connections_closed_by_upstream_between_requests_cost_no_request() {
    let upstream = Upstream::answering(|_| OK.into());
    let key = Key::new();
    let gateway = start(&upstream, &key);
    let own = bearer(&key);
    let mut connection = gateway.connect();
    for _ in 0..20 {
        assert_eq!(connection.ask("GET /v2/me", &[&own]).status, 200);
        assert_eq!(connection.ask_with("POST /v2/bookings", &[&own], "{}").status, 200);
        upstream.close_connections();
    }
    assert_eq!(upstream.requests().len(), 40);
}

/// Has `callers` requests in flight at once, each on a connection of its own.
fn burst(gateway: &Gateway, key: &Key, callers: usize) {
    std::thread::scope(|scope| {
        for _ in 0..callers {
            scope.spawn(|| assert_eq!(gateway.ask("GET /v2/me", &[&bearer(key)]).status, 200));
        }
    });
}

/// Holds the requests of a burst until all of them are there, so that each has a connection.
fn holding(size: usize, then: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static) -> Upstream {
    let (together, requests) = (Barrier::new(size), AtomicUsize::new(0));
    Upstream::answering(move |asked| {
        if requests.fetch_add(1, Ordering::Relaxed) < size {
            together.wait();
            return OK.into();
        }
        then(asked.connection)
    })
}

#[test]
fn a_restart_of_the_upstream_costs_no_get_however_many_connections_were_idle() {
    const IDLE: usize = 30;
    // After its restart, it knows none of the connections from before.
    let upstream = holding(IDLE, |connection| if connection < IDLE { Vec::new() } else { OK.into() });
    let key = Key::new();
    let gateway = start(&upstream, &key);
    burst(&gateway, &key, IDLE);
    for _ in 0..IDLE {
        assert_eq!(gateway.ask("GET /v2/me", &[&bearer(&key)]).status, 200);
    }
    let failed = upstream.requests().iter().skip(IDLE).filter(|asked| asked.connection < IDLE).count();
    assert_eq!(failed, 1, "one failure closes the other idle connections");
}

#[test]
fn idle_connections_are_closed_after_the_idle_timeout() {
    const BURST: usize = 400;
    let upstream = holding(BURST, |_| OK.into());
    let key = Key::new();
    let gateway = start(&upstream, &key);
    burst(&gateway, &key, BURST);
    eventually("the end of what no request uses", || (upstream.open_connections() == 0).then_some(()));
    assert_eq!(gateway.ask("GET /v2/me", &[&bearer(&key)]).status, 200);
}
