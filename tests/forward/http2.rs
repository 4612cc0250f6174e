//! HTTP/2 to Cal.com: requests that it did not process, and isolation of requests on a shared connection.

use std::io::Write as _;
use std::sync::Barrier;

use crate::cal_sim::Sim;
use crate::cal_sim::options::{DEMO_API_KEY, Options};
use crate::harness::frame_upstream::{go_away, ok, reset};
use crate::harness::{
    FrameUpstream, Gateway, Key, RawConnection, Setup, connect_with_small_buffer, eventually, time_limit,
};

const REFUSED_STREAM: u32 = 7;
const INTERNAL_ERROR: u32 = 2;
const NO_ERROR: u32 = 0;
const ENHANCE_YOUR_CALM: u32 = 11;

fn own(key: &Key) -> String {
    format!("X-Api-Key: {}", key.text)
}

fn to_edge(edge: &FrameUpstream, key: &Key) -> Gateway {
    Setup::to(&edge.base_url()).with(&edge.ca_file()).billing("teams", key).workers(1).start()
}

fn post(gateway: &Gateway, key: &Key) -> (u16, Option<String>) {
    let answer = gateway.connect().ask_with("POST /v2/bookings", &[&own(key)], "{}");
    (answer.status, answer.code().map(str::to_owned))
}

#[test]
fn a_post_that_cal_com_did_not_process_is_sent_again_on_another_connection() {
    let ended = [NO_ERROR, INTERNAL_ERROR, ENHANCE_YOUR_CALM].map(|reason| go_away(1, reason));
    for left_alone in ended.into_iter().chain([reset(3, REFUSED_STREAM)]) {
        let edge = FrameUpstream::answering(move |connection, stream| match (connection, stream) {
            (0, 3) => left_alone.clone(),
            _ => ok(stream, b"{}"),
        });
        let key = Key::new();
        let gateway = to_edge(&edge, &key);
        assert_eq!([post(&gateway, &key).0, post(&gateway, &key).0], [200, 200]);
        assert_eq!(edge.requests(), [(0, 1), (0, 3), (1, 1)]);
    }
}

#[test]
fn a_post_that_may_have_been_processed_is_not_sent_again() {
    let edge = FrameUpstream::answering(|_, stream| match stream {
        1 => ok(stream, b"{}"),
        _ => reset(stream, INTERNAL_ERROR),
    });
    let key = Key::new();
    let gateway = to_edge(&edge, &key);
    assert_eq!(post(&gateway, &key).0, 200);
    assert_eq!(post(&gateway, &key), (502, Some("GATEWAY_UPSTREAM_UNREACHABLE".to_owned())));
    assert_eq!(edge.requests(), [(0, 1), (0, 3)]);
}

#[test]
fn a_burst_opens_one_connection() {
    let edge = FrameUpstream::answering(|_, stream| ok(stream, b"{}"));
    let key = Key::new();
    let gateway = to_edge(&edge, &key);
    let start = Barrier::new(50);
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let mut caller = gateway.connect();
                start.wait();
                assert_eq!(caller.ask("GET /v2/me", &[&own(&key)]).status, 200);
            });
        }
    });
    assert_eq!((edge.requests().len(), edge.requests().iter().all(|(connection, _)| *connection == 0)), (50, true));
    gateway.reload(|text| format!("{text}\n# Nothing of the upstream is another.\n"));
    assert_eq!(gateway.ask("GET /v2/me", &[&own(&key)]).status, 200);
    assert_eq!(edge.requests().last().unwrap().0, 0, "and a reload keeps it");
}

#[test]
fn an_early_response_leaves_the_callers_connection_usable() {
    let edge = FrameUpstream::answering_frames(|_, stream, frame| match frame {
        0 => ok(stream, b"{}"),
        1 => Vec::new(),
        // Of the rest, it wants nothing (RFC 9113 §8.1).
        _ => reset(stream, NO_ERROR),
    });
    let key = Key::new();
    // Nothing of a body is kept, so that it is on its way when the answer comes.
    let gateway = Setup::to(&edge.base_url())
        .with(&edge.ca_file())
        .with("[limits]\nreplay_body_limit = 0")
        .billing("teams", &key)
        .start();
    let mut caller = gateway.connect();
    for _ in 0..5 {
        let body = "x".repeat(5_000);
        let length = format!("Content-Length: {}", body.len());
        let head = format!("POST /v2/bookings HTTP/1.1\r\nHost: h\r\n{}\r\n{length}\r\n\r\n", own(&key));
        let answer = caller.send(head).send(&body[..100]).read_response();
        assert_eq!((answer.status, answer.header("connection")), (200, None));
        caller.send(&body[100..200]).send(&body[200..]);
    }
}

fn to_sim(sim: &Sim, key: &Key, limits: &str) -> (Gateway, tempfile::NamedTempFile) {
    let mut authority = tempfile::NamedTempFile::new().unwrap();
    authority.write_all(sim.ca_pem().unwrap().as_bytes()).unwrap();
    let gateway = Setup::to(&sim.base_url())
        .with(&format!("ca_file = \"{}\"\n[limits]\n{limits}", authority.path().display()))
        .billing("teams", key)
        .env("CAL_TEST_KEY", DEMO_API_KEY)
        .workers(1);
    (gateway.start(), authority)
}

#[test]
fn callers_that_read_nothing_delay_no_other_caller() {
    let mut options = Options { tls: true, ..Options::default() };
    options.limits.api_key.clear();
    let (sim, key) = (Sim::start(options).unwrap(), Key::new());
    let (gateway, _authority) = to_sim(&sim, &key, "");
    let request = format!("GET /v2/me?sim_body=20000000 HTTP/1.1\r\nHost: h\r\n{}\r\n\r\n", own(&key));
    let mut silent: Vec<_> = (0..3).map(|_| RawConnection::over(connect_with_small_buffer(&gateway.address))).collect();
    for caller in &mut silent {
        caller.send(&request);
    }
    eventually("their requests", || (sim.seen_count() == 3).then_some(()));
    let mut other = gateway.connect();
    for _ in 0..300 {
        assert_eq!(other.ask("GET /v2/me", &[&own(&key)]).status, 200);
    }
}

#[test]
fn a_fault_of_the_callers_body_is_reported_as_one() {
    let (sim, key) = (Sim::start(Options { tls: true, ..Options::default() }).unwrap(), Key::new());
    for (kept, rest, status) in [0, 65536].into_iter().flat_map(|kept| {
        [("9\r\n123456789\r\n", 413), ("no chunk\r\n", 400), ("", 408)].map(|(rest, status)| (kept, rest, status))
    }) {
        let limits = format!("body_bytes = 10\nbody = \"{}\"\nreplay_body_limit = {kept}", time_limit(300));
        // The simulation ends a connection on which a body broke off, and so each has its own.
        let (gateway, _authority) = to_sim(&sim, &key, &limits);
        let begun = format!(
            "POST /v2/bookings HTTP/1.1\r\nHost: h\r\n{}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n",
            own(&key)
        );
        let answer = gateway.connect().send(&begun).send(rest).read_response();
        assert_eq!(answer.status, status, "{rest:?}, {kept} kept: {}", answer.text());
    }
}
