//! Connections to Cal.com: number of requests, age, and when calgate gives one up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use crate::harness::frame_upstream::{Limits, ok};
use crate::harness::{FrameUpstream, Gateway, Key, OK, Setup, Upstream, eventually, scaled};

fn own(key: &Key) -> String {
    format!("X-Api-Key: {}", key.text)
}

/// A gateway in front of `edge`, with these keys in `[limits]`.
fn start(edge: &FrameUpstream, key: &Key, limits: &str) -> Gateway {
    Setup::to(&edge.base_url())
        .with(&edge.ca_file())
        .with(&format!("[budget]\nmode = \"off\"\n[limits]\n{limits}"))
        .billing("teams", key)
        .workers(1)
        .start()
}

fn get(gateway: &Gateway, key: &Key) -> u16 {
    gateway.ask("GET /v2/me", &[&own(key)]).status
}

/// Something that a test lets go.
#[derive(Clone, Default)]
struct Gate(Arc<AtomicBool>);

impl Gate {
    fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn wait(&self) {
        eventually("the gate", || self.0.load(Ordering::SeqCst).then_some(()));
    }
}

#[test]
fn requests_beyond_the_peers_stream_limit_go_on_another_connection() {
    const LIMIT: usize = 3;
    // All of two connections' streams have to be there before any is answered.
    let limits = Limits { streams: Some(3), ..Limits::default() };
    let (key, gate) = (Key::new(), Gate::default());
    let opens = gate.clone();
    let edge = FrameUpstream::with_limits(limits, move |_, stream, frame| {
        // A connection answers all of its streams with its last one.
        let last = u32::try_from(LIMIT).unwrap() * 2 - 1;
        if frame > 0 || stream < last {
            return Vec::new();
        }
        opens.wait();
        (1..=last).step_by(2).flat_map(|stream| ok(stream, b"{}")).collect()
    });
    let gateway = start(&edge, &key, "");
    std::thread::scope(|scope| {
        let posts: Vec<_> = (0..LIMIT * 2)
            .map(|_| scope.spawn(|| gateway.connect().ask_with("POST /v2/bookings", &[&own(&key)], "{}").status))
            .collect();
        eventually("all requests", || (edge.requests().len() == LIMIT * 2).then_some(()));
        gate.open();
        assert!(posts.into_iter().all(|post| post.join().unwrap() == 200));
    });
    let on = |connection| edge.requests().iter().filter(|asked| asked.0 == connection).count();
    assert_eq!([on(0), on(1)], [LIMIT, LIMIT]);
}

#[test]
fn a_request_cancelled_before_it_had_a_stream_is_never_sent_and_says_so() {
    let (key, gate) = (Key::new(), Gate::default());
    let held = gate.clone();
    let edge = FrameUpstream::with_limits(Limits { streams: Some(1), connections: 1 }, move |_, stream, frame| {
        if frame > 0 {
            return Vec::new();
        }
        if stream == 1 {
            held.wait();
        }
        ok(stream, b"{}")
    });
    // Time for a handshake on a busy machine, and less than until a PING that is not answered ends the connection.
    let connect = scaled(Duration::from_millis(500)).as_millis().min(2500);
    let gateway = start(&edge, &key, &format!("upstream_lookup = \"1s\"\nupstream_connect = \"{connect}ms\""));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| get(&gateway, &key));
        eventually("the first request", || (edge.requests().len() == 1).then_some(()));
        let answer = gateway.connect().ask_with("POST /v2/bookings", &[&own(&key)], "{}");
        assert_eq!((answer.status, answer.code()), (502, Some("GATEWAY_UPSTREAM_UNREACHABLE")));
        assert!(answer.text().contains("The request was not sent."), "{}", answer.text());
        gate.open();
        assert_eq!(first.join().unwrap(), 200);
    });
    assert_eq!(get(&gateway, &key), 200);
    assert_eq!(edge.requests(), [(0, 1), (0, 3)], "two GETs, and no POST");
}

#[test]
fn a_burst_waits_for_the_peers_settings_and_shares_one_connection() {
    let (key, start_line) = (Key::new(), Barrier::new(20));
    let edge = FrameUpstream::with_limits(Limits { streams: Some(100), ..Limits::default() }, |_, stream, frame| {
        if frame == 0 { ok(stream, b"{}") } else { Vec::new() }
    });
    let gateway = start(&edge, &key, "");
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                start_line.wait();
                assert_eq!(get(&gateway, &key), 200);
            });
        }
    });
    assert!(edge.requests().iter().all(|asked| asked.0 == 0), "{:?}", edge.requests());
}

#[test]
fn a_ping_finds_a_dead_connection_and_a_get_is_sent_on_another() {
    let key = Key::new();
    let edge = FrameUpstream::answering(|connection, stream| {
        if (connection, stream) == (0, 3) {
            // From here on the path is dead: nothing is read, and no PING answered.
            loop {
                std::thread::park();
            }
        }
        ok(stream, b"{}")
    });
    // A PING every 20 s would be too late.
    let gateway = start(&edge, &key, "upstream_headers = \"15s\"");
    assert_eq!(get(&gateway, &key), 200);
    assert_eq!(get(&gateway, &key), 200);
    assert_eq!(edge.requests(), [(0, 1), (0, 3), (1, 1)]);
}

#[test]
fn an_old_connection_accepts_no_more_requests() {
    let key = Key::new();
    let edge = FrameUpstream::answering(|_, stream| ok(stream, b"{}"));
    let gateway = start(&edge, &key, "upstream_connection_age = \"200ms\"");
    eventually("another connection of HTTP/2", || {
        assert_eq!(get(&gateway, &key), 200);
        (edge.requests().last().unwrap().0 > 0).then_some(())
    });

    let upstream = Upstream::answering(|_| OK.into());
    let gateway = Setup::to(&upstream.base_url())
        .with("[limits]\nupstream_connection_age = \"200ms\"")
        .billing("teams", &key)
        .workers(1)
        .start();
    eventually("another connection of HTTP/1.1", || {
        assert_eq!(get(&gateway, &key), 200);
        (upstream.requests().last().unwrap().connection > 0).then_some(())
    });
}

#[test]
fn sighup_opens_new_connections_and_keeps_those_of_requests_in_progress() {
    let (key, gate) = (Key::new(), Gate::default());
    let held = gate.clone();
    let edge = FrameUpstream::answering(move |connection, stream| {
        if (connection, stream) == (0, 3) {
            held.wait();
        }
        ok(stream, b"{}")
    });
    let gateway = start(&edge, &key, "");
    assert_eq!(get(&gateway, &key), 200);
    std::thread::scope(|scope| {
        let under_way = scope.spawn(|| get(&gateway, &key));
        eventually("a request under way", || (edge.requests().len() == 2).then_some(()));
        gateway.signal("-HUP");
        gateway.wait_for_log("reconnecting to the upstream");
        assert_eq!(get(&gateway, &key), 200);
        assert_eq!(edge.requests().last(), Some(&(1, 1)));
        gate.open();
        assert_eq!(under_way.join().unwrap(), 200);
    });
}
