//! The end of the program: what is in flight is finished, and nothing that was read is dropped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};

use crate::harness::{Gateway, Key, Setup, Upstream, Wire, eventually, narrow};

#[test]
fn what_is_in_flight_is_finished_and_then_it_ends_with_success() {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let upstream = Upstream::answering(move |_| {
        let _ = held.lock().unwrap().recv();
        crate::harness::OK.into()
    });
    let key = Key::new();
    let mut gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    let own = format!("Authorization: Bearer {}", key.text);
    let (mut idle, mut busy) = (gateway.connect(), gateway.connect());
    busy.send(format!("GET /v2/me HTTP/1.1\r\nHost: h\r\n{own}\r\n\r\n"));
    eventually("a request in flight", || (upstream.asked().len() == 1).then_some(()));

    gateway.signal("-TERM");
    gateway.logged("draining");
    assert!(idle.is_closed(), "a connection without a request ends at once");
    assert_eq!(gateway.ask_admin("GET /readyz", &[]).status, 503);
    assert_eq!(gateway.ask_admin("GET /livez", &[]).status, 200);
    release.send(()).unwrap();
    let answer = busy.answer();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(gateway.ended(), Some(0));
    assert_eq!(gateway.access_log(1)[0]["status"], 200);
}

/// Callers that have asked and take nothing yet, each for an answer longer by less than hyper holds back: some answer is
/// more than the kernel takes, and yet no work for the gateway any more.
fn callers_that_wait(limits: &str) -> (Gateway, Vec<Wire>) {
    let (lengths, asked) = (10, AtomicUsize::new(6));
    let upstream = Upstream::answering(move |_| {
        let length = asked.fetch_add(1, Ordering::Relaxed) * 250_000;
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + length, b'x');
        answer
    });
    let key = Key::new();
    let setup = Setup::to(&upstream.base_url()).with(&format!("[limits]\n{limits}")).workers(1);
    let gateway = setup.billing("unrestricted", &key).start();
    let own = format!("Authorization: Bearer {}\r\nConnection: close", key.text);
    let callers = (0..lengths).map(|_| {
        let mut caller = Wire::over(narrow(&gateway.address));
        caller.send(format!("GET /v2/me HTTP/1.1\r\nHost: h\r\n{own}\r\n\r\n"));
        caller
    });
    let callers = callers.collect();
    eventually("requests in flight", || (upstream.asked().len() == lengths).then_some(()));
    (gateway, callers)
}

#[test]
fn what_callers_have_yet_to_take_is_sent_before_it_ends() {
    let (mut gateway, callers) = callers_that_wait("drain = \"1h\"");
    let mut silent = gateway.connect();
    gateway.signal("-TERM");
    gateway.logged("draining");
    assert!(silent.is_closed(), "one that asked nothing is given up");
    for mut caller in callers {
        assert_eq!(caller.answer().status, 200);
    }
    assert_eq!(gateway.ended(), Some(0));
}

#[test]
fn callers_that_take_nothing_are_let_go_also_when_all_is_answered() {
    let (mut gateway, _callers) = callers_that_wait("upstream_total = \"2s\"\nidle = \"1h\"\ndrain = \"1h\"");
    eventually("no connection", || (gateway.metric("calgate_connections", "") == 0).then_some(()));
    gateway.signal("-TERM");
    assert_eq!(gateway.ended(), Some(0));
}

#[test]
fn a_request_that_never_ends_is_given_up_at_the_drain_limit() {
    let upstream = Upstream::answering(|_| {
        loop {
            std::thread::park();
        }
    });
    let key = Key::new();
    let limits = "[limits]\ndrain = \"1h\"";
    let mut gateway = Setup::to(&upstream.base_url()).with(limits).billing("teams", &key).start();
    let mut busy = gateway.connect();
    busy.send(format!("GET /v2/me HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\n\r\n", key.text));
    eventually("a request in flight", || (upstream.asked().len() == 1).then_some(()));
    gateway.reload(|text| text.replace("drain = \"1h\"", "drain = \"200ms\""));
    gateway.signal("-INT");
    assert_eq!(gateway.ended(), Some(0));
    gateway.logged("limits.drain is over");
    is_written_down_as_given_up(&gateway);
}

/// A request that was sent and given up leaves its line, which does not say that its caller left.
fn is_written_down_as_given_up(gateway: &Gateway) {
    let lines = gateway.access_log(1);
    let [line] = &lines[..] else { panic!("one line for one request: {lines:?}") };
    assert_eq!((&line["status"], &line["code"]), (&503.into(), &"-".into()), "{line}");
    assert_eq!(line["detail"], "given up: calgate ended before the answer did");
    assert!(line["upstream_ms"].as_f64().unwrap() > 0.0, "{line}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let upstream = Upstream::answering(|_| {
        loop {
            std::thread::park();
        }
    });
    let key = Key::new();
    let mut gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    let mut busy = gateway.connect();
    busy.send(format!("GET /v2/me HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\n\r\n", key.text));
    eventually("a request in flight", || (upstream.asked().len() == 1).then_some(()));
    gateway.signal("-INT");
    gateway.logged("draining");
    gateway.signal("-INT");
    assert_eq!(gateway.ended(), Some(0));
    gateway.logged("told to stop again");
    is_written_down_as_given_up(&gateway);
}

#[test]
fn no_request_that_was_read_is_dropped_under_load() {
    let upstream = Upstream::start();
    let key = Key::new();
    let mut gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    let request = format!("GET /v2/me HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\n\r\n", key.text);
    let callers: Vec<_> = (0..8).map(|_| (gateway.connect(), request.clone())).collect();
    let callers: Vec<_> = callers
        .into_iter()
        .map(|(mut connection, request)| {
            std::thread::spawn(move || {
                let mut answered = 0;
                while !connection.send(&request).is_closed() {
                    assert_eq!(connection.answer().status, 200);
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    eventually("some load", || (upstream.asked().len() > 200).then_some(()));
    gateway.signal("-TERM");
    assert_eq!(gateway.ended(), Some(0));
    let answered: usize = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
    // What Cal.com was asked was answered to a caller, and nothing was asked that no caller heard of.
    assert_eq!(answered, upstream.asked().len());
}
