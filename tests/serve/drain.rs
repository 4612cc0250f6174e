//! Drain: calgate finishes requests in flight, and answers every request that it has read.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use parking_lot::Mutex;

use crate::harness::{
    Gateway, Key, RawConnection, Response, Setup, Upstream, client_builder, connect_with_small_buffer, eventually,
};

#[test]
fn what_is_in_flight_is_finished_and_then_it_ends_with_success() {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let upstream = Upstream::answering(move |_| {
        let _ = held.lock().recv();
        crate::harness::OK.into()
    });
    let key = Key::new();
    let mut gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    let own = format!("Authorization: Bearer {}", key.text);
    let (mut idle, mut busy) = (gateway.connect(), gateway.connect());
    busy.send(format!("GET /v2/me HTTP/1.1\r\nHost: h\r\n{own}\r\n\r\n"));
    eventually("a request in flight", || (upstream.requests().len() == 1).then_some(()));

    gateway.signal("-TERM");
    gateway.wait_for_log("draining");
    assert!(idle.is_closed(), "a connection without a request ends at once");
    assert_eq!(gateway.ask_admin("GET /readyz", &[]).status, 503);
    assert_eq!(gateway.ask_admin("GET /livez", &[]).status, 200);
    release.send(()).unwrap();
    let answer = busy.read_response();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(gateway.wait_for_exit(), Some(0));
    assert_eq!(gateway.access_log(1)[0]["status"], 200);
}

/// Starts callers that send a request and read no response yet. Each response is a little longer than the one before.
///
/// At least one response exceeds the buffers of the kernel, while hyper holds all of its rest.
fn callers_that_wait(limits: &str) -> (Gateway, Vec<RawConnection>) {
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
        let mut caller = RawConnection::over(connect_with_small_buffer(&gateway.address));
        caller.send(format!("GET /v2/me HTTP/1.1\r\nHost: h\r\n{own}\r\n\r\n"));
        caller
    });
    let callers = callers.collect();
    eventually("requests in flight", || (upstream.requests().len() == lengths).then_some(()));
    (gateway, callers)
}

#[test]
fn what_callers_have_yet_to_take_is_sent_before_it_ends() {
    let (mut gateway, callers) = callers_that_wait("drain = \"1h\"");
    let mut silent = gateway.connect();
    gateway.signal("-TERM");
    gateway.wait_for_log("draining");
    assert!(silent.is_closed(), "one that asked nothing is given up");
    for mut caller in callers {
        assert_eq!(caller.read_response().status, 200);
    }
    assert_eq!(gateway.wait_for_exit(), Some(0));
}

#[test]
fn callers_that_take_nothing_are_let_go_also_when_all_is_answered() {
    let (mut gateway, _callers) = callers_that_wait("upstream_total = \"2s\"\nidle = \"1h\"\ndrain = \"1h\"");
    eventually("no connection", || (gateway.metric("calgate_connections", "") == 0).then_some(()));
    gateway.signal("-TERM");
    assert_eq!(gateway.wait_for_exit(), Some(0));
}

/// Starts an upstream that answers only the first request, and a gateway that has sent this request.
fn endless(limits: &str) -> (Upstream, Key, Gateway) {
    let is_first = AtomicBool::new(true);
    let upstream = Upstream::answering(move |_| {
        while !is_first.swap(false, Ordering::Relaxed) {
            std::thread::park();
        }
        crate::harness::OK.into()
    });
    let key = Key::new();
    let gateway = Setup::to(&upstream.base_url()).with(limits).billing("unrestricted", &key).start();
    // The gateway sends several requests at a time only after the first response.
    assert_eq!(gateway.connect().send(get(&key)).read_response().status, 200);
    (upstream, key, gateway)
}

fn get(key: &Key) -> String {
    format!("GET /v2/me HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\n\r\n", key.text)
}

/// Ends the gateway with two signals.
fn stop_at_once(gateway: &mut Gateway) {
    gateway.signal("-INT");
    gateway.wait_for_log("draining");
    gateway.signal("-INT");
    assert_eq!(gateway.wait_for_exit(), Some(0));
    gateway.wait_for_log("received a second signal");
}

const SENT: &str = "The request was sent to Cal.com, and may have been carried out";
const NOT_SENT: &str = "The request was not carried out";

/// Checks that a response reports the end of the gateway, and the fate of the request.
fn says_that_it_stops(answer: &Response, fate: &str) {
    assert_eq!((answer.status, answer.code()), (503, Some("GATEWAY_STOPPING")), "{answer:?}");
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(answer.header("retry-after").is_some(), fate == NOT_SENT);
    assert!(answer.text().contains(fate), "{}", answer.text());
}

#[test]
fn a_request_that_never_ends_is_answered_503_at_the_drain_limit() {
    let (upstream, key, mut gateway) = endless("[limits]\ndrain = \"1h\"");
    let mut busy = gateway.connect();
    busy.send(get(&key));
    eventually("a request in flight", || (upstream.requests().len() == 2).then_some(()));
    gateway.reload(|text| text.replace("drain = \"1h\"", "drain = \"200ms\""));
    gateway.signal("-INT");
    says_that_it_stops(&busy.read_response(), SENT);
    assert_eq!(busy.read_to_end(), b"");
    assert_eq!(gateway.wait_for_exit(), Some(0));
    gateway.wait_for_log("limits.drain is over");
    let log = gateway.access_log(2);
    let [_, line] = &log[..] else { panic!("one line for each request: {log:?}") };
    assert_eq!((&line["status"], &line["code"]), (&503.into(), &"GATEWAY_STOPPING".into()), "{line}");
    assert_eq!(line["detail"], "given up after it was sent: calgate ended first");
    assert!(line["upstream_ms"].as_f64().unwrap() > 0.0, "{line}");
}

#[test]
fn a_second_signal_ends_it_at_once_and_requests_that_were_sent_are_answered_503() {
    let (upstream, key, mut gateway) = endless("");
    let own = format!("Host: h\r\nX-Api-Key: {}", key.text);
    let requests = [
        get(&key),
        format!("POST /v2/bookings HTTP/1.1\r\n{own}\r\nContent-Length: 2\r\n\r\n{{}}"),
        // The client has not sent all of this body.
        format!("POST /v2/bookings HTTP/1.1\r\n{own}\r\nContent-Length: 9\r\n\r\n{{}}"),
        format!("GET /v2/me HTTP/1.0\r\n{own}\r\n\r\n"),
    ];
    let clients = requests.each_ref().map(|request| {
        let mut client = gateway.connect();
        client.send(request);
        client
    });
    let in_flight = || gateway.metric("calgate_requests_in_flight", "");
    eventually("requests in flight", || (upstream.requests().len() == 4 && in_flight() == 4).then_some(()));
    stop_at_once(&mut gateway);
    for mut client in clients {
        says_that_it_stops(&client.read_response(), SENT);
        assert_eq!(client.read_to_end(), b"", "the connection ends behind it");
    }
}

#[test]
fn a_request_that_waits_for_the_budget_is_answered_503_that_it_was_not_sent() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let budget = "[budget]\nmax_wait = \"90s\"";
    let mut gateway = Setup::to(&upstream.base_url()).with(budget).billing("unrestricted", &key).start();
    gateway.reload(|text| text.replace("requests_per_minute = 100000\n[tiers", "requests_per_minute = 5\n[tiers"));
    let mut client = gateway.connect();
    for _ in 0..5 {
        assert_eq!(client.send(get(&key)).read_response().status, 200);
    }
    client.send(get(&key));
    eventually("a request that waits", || (gateway.metric("calgate_requests_in_flight", "") == 1).then_some(()));
    stop_at_once(&mut gateway);
    says_that_it_stops(&client.read_response(), NOT_SENT);
    assert_eq!(upstream.requests().len(), 5);
    let log = gateway.access_log(6);
    assert_eq!(log[5]["detail"], "given up, and not carried out: calgate ended first");
}

#[test]
fn a_request_whose_connection_is_not_there_yet_is_answered_503_that_it_was_not_sent() {
    // This upstream accepts connections and never answers the TLS handshake.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let key = Key::new();
    let setup = Setup::to(&format!("https://{}", silent.local_addr().unwrap()));
    let mut gateway = setup.with("[limits]\nupstream_connect = \"20s\"").billing("unrestricted", &key).start();
    let mut client = gateway.connect();
    client.send(get(&key));
    let _connection = silent.accept().unwrap();
    stop_at_once(&mut gateway);
    says_that_it_stops(&client.read_response(), NOT_SENT);
}

#[test]
fn all_streams_of_an_http2_connection_are_answered_503() {
    let (upstream, key, mut gateway) = endless("");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let client = client_builder().http2_prior_knowledge().build().unwrap();
        let requests: Vec<_> = (0..5)
            .map(|_| client.post(format!("http://{}/v2/bookings", gateway.address)).bearer_auth(&key.text).body("{}"))
            .map(|request| tokio::spawn(request.send()))
            .collect();
        tokio::task::block_in_place(|| {
            eventually("requests in flight", || (upstream.requests().len() == 6).then_some(()));
            stop_at_once(&mut gateway);
        });
        for request in requests {
            let answer = request.await.unwrap().expect("a response");
            assert_eq!(answer.status(), 503);
            assert_eq!(answer.headers()["x-calgate-code"], "GATEWAY_STOPPING");
            let text = answer.text().await.unwrap();
            assert!(text.contains(SENT), "{text}");
        }
    });
}

#[test]
fn a_response_that_has_begun_is_cut_and_written_down_as_given_up() {
    let upstream = Upstream::answering(|_| "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".into());
    let key = Key::new();
    let mut gateway = Setup::to(&upstream.base_url()).billing("unrestricted", &key).start();
    let mut client = gateway.connect();
    assert_eq!(client.send(get(&key)).read_head().status, 200);
    stop_at_once(&mut gateway);
    assert_eq!(client.read_to_end(), b"half");
    let log = gateway.access_log(1);
    assert_eq!((&log[0]["status"], &log[0]["code"]), (&503.into(), &"-".into()), "{log:?}");
    assert_eq!(log[0]["detail"], "given up: calgate ended before the answer did");
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
                    assert_eq!(connection.read_response().status, 200);
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    eventually("some load", || (upstream.requests().len() > 200).then_some(()));
    gateway.signal("-TERM");
    assert_eq!(gateway.wait_for_exit(), Some(0));
    let answered: usize = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
    // Callers receive one response for each request that Cal.com receives.
    assert_eq!(answered, upstream.requests().len());
}
