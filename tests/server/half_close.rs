//! Clients that close their sending side and wait for the response (RFC 9112 §9.6), and clients that disconnect.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use parking_lot::Mutex;

use crate::harness::{Gateway, Key, OK, Setup, Upstream, eventually};

/// An upstream that answers one request for each signal of the test.
fn held() -> (Upstream, mpsc::Sender<()>) {
    let (release, held) = mpsc::channel();
    let held = Mutex::new(held);
    let answer = move |_: &_| {
        let _ = held.lock().recv();
        OK.into()
    };
    (Upstream::answering(answer), release)
}

fn gateway(upstream: &Upstream, key: &Key) -> Gateway {
    Setup::to(&upstream.base_url()).billing("unrestricted", key).start()
}

fn get(key: &Key) -> String {
    format!("GET /v2/me HTTP/1.1\r\nHost: h\r\nX-Api-Key: {}\r\n\r\n", key.text)
}

#[test]
fn a_client_that_has_nothing_more_to_send_gets_its_response() {
    let ((upstream, release), key) = (held(), Key::new());
    let gateway = gateway(&upstream, &key);
    let own = format!("Host: h\r\nX-Api-Key: {}", key.text);
    let requests = [
        get(&key),
        format!("POST /v2/bookings HTTP/1.1\r\n{own}\r\nContent-Length: 2\r\n\r\n{{}}"),
        format!("POST /v2/bookings HTTP/1.1\r\n{own}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"),
        format!("GET /v2/me HTTP/1.1\r\n{own}\r\nConnection: close\r\n\r\n"),
        format!("GET /v2/me HTTP/1.0\r\n{own}\r\n\r\n"),
    ];
    for (n, request) in requests.iter().enumerate() {
        let mut client = gateway.connect();
        client.send(request).shutdown_write();
        eventually("a request at Cal.com", || (upstream.requests().len() == n + 1).then_some(()));
        release.send(()).unwrap();
        assert_eq!(client.read_response().status, 200, "{request}");
        assert_eq!(client.read_to_end(), b"", "the connection ends behind it");
    }
    assert!(gateway.access_log(5).iter().all(|line| line["status"] == 200));
}

#[test]
fn all_pipelined_requests_before_the_end_are_answered() {
    let ((upstream, release), key) = (held(), Key::new());
    let gateway = gateway(&upstream, &key);
    let mut client = gateway.connect();
    client.send(get(&key).repeat(3)).shutdown_write();
    for _ in 0..3 {
        release.send(()).unwrap();
        assert_eq!(client.read_response().status, 200);
    }
    assert_eq!(client.read_to_end(), b"");
    assert_eq!(upstream.requests().len(), 3);
}

#[test]
fn a_request_that_waits_for_the_budget_is_answered_too() {
    let (upstream, key) = (Upstream::start(), Key::new());
    // Two requests in each window of 2 s.
    let budget = "[budget]\nwindow = \"2s\"\nmax_wait = \"20s\"";
    let gateway = Setup::to(&upstream.base_url()).with(budget).billing("unrestricted", &key).start();
    gateway.reload(|text| text.replace("requests_per_minute = 100000\n[tiers", "requests_per_minute = 60\n[tiers"));
    let mut client = gateway.connect();
    for _ in 0..2 {
        assert_eq!(client.send(get(&key)).read_response().status, 200);
    }
    assert_eq!(client.send(get(&key)).shutdown_write().read_response().status, 200);
    assert_eq!(client.read_to_end(), b"");
    let log = gateway.access_log(3);
    assert!(log[2]["held_ms"].as_f64().unwrap() > 0.0, "it has waited: {}", log[2]);
}

#[test]
fn a_client_that_resets_its_connection_has_left() {
    let ((upstream, _release), key) = (held(), Key::new());
    let gateway = gateway(&upstream, &key);
    for round in 0..2 {
        let mut client = gateway.connect();
        client.send(get(&key));
        if round == 1 {
            client.shutdown_write();
        }
        eventually("a request at Cal.com", || (upstream.requests().len() == round + 1).then_some(()));
        client.reset();
        let log = gateway.access_log(round + 1);
        assert_eq!(log[round]["status"], 499, "round {round}");
        assert_eq!(gateway.metric("calgate_requests_in_flight", ""), 0);
    }
}

#[test]
fn a_request_without_its_end_is_answered_400() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key);
    let whole = get(&key);
    let body = whole.replace("GET /v2/me", "POST /v2/bookings").replace("\r\n\r\n", "\r\nContent-Length: 9\r\n\r\n{}");
    let chunked = whole.replace("GET /v2/me", "POST /v2/bookings");
    let chunked = chunked.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}");
    for part in [&whole[..5], &whole[..30], &whole[..whole.len() - 2], &body, &chunked] {
        for before in ["", &whole] {
            let mut client = gateway.connect();
            client.send(format!("{before}{part}")).shutdown_write();
            if !before.is_empty() {
                assert_eq!(client.read_response().status, 200);
            }
            let answer = client.read_response();
            assert_eq!(
                (answer.status, answer.code()),
                (400, Some("GATEWAY_BAD_REQUEST")),
                "{part:?} behind {before:?}"
            );
            assert_eq!(client.read_to_end(), b"");
        }
    }
}

#[test]
fn a_connection_without_a_request_ends_with_its_client() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key);
    assert_eq!(gateway.connect().shutdown_write().read_to_end(), b"", "nothing was sent");
    assert_eq!(gateway.connect().send("\r\n").shutdown_write().read_to_end(), b"", "an empty line is no request");
    let mut used = gateway.connect();
    assert_eq!(used.send(get(&key)).read_response().status, 200);
    assert_eq!(used.shutdown_write().read_to_end(), b"");
    eventually("no connection", || (gateway.metric("calgate_connections", "") == 0).then_some(()));
}

#[test]
fn a_unix_socket_tells_a_half_close_from_a_close() {
    let ((upstream, release), key) = (held(), Key::new());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calgate.sock");
    let listen = format!("address = \"unix:{}\"", path.display());
    let gateway = Setup::to(&upstream.base_url()).listen(&listen).billing("teams", &key).start();
    let mut left = UnixStream::connect(&path).unwrap();
    left.write_all(get(&key).as_bytes()).unwrap();
    eventually("a request at Cal.com", || (upstream.requests().len() == 1).then_some(()));
    drop(left);
    assert_eq!(gateway.access_log(1)[0]["status"], 499);
    let mut half = UnixStream::connect(&path).unwrap();
    half.write_all(get(&key).as_bytes()).unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    eventually("another", || (upstream.requests().len() == 2).then_some(()));
    release.send(()).unwrap();
    release.send(()).unwrap();
    let mut answer = String::new();
    half.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}
