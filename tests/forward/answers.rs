//! Responses of Cal.com: which ones calgate passes on, and which ones it replaces.

use parking_lot::Mutex;

use crate::harness::{Gateway, Key, Response, Setup, Upstream, time_limit};

fn answered_with(bytes: &'static str) -> (Response, Gateway) {
    let (upstream, key) = (Upstream::answering(move |_| bytes.into()), Key::new());
    let (headers, total) = (time_limit(300), time_limit(600));
    let limits = format!("[limits]\nupstream_headers = \"{headers}\"\nupstream_total = \"{total}\"");
    let gateway = Setup::to(&upstream.base_url()).with(&limits).billing("teams", &key).start();
    (gateway.ask("GET /v2/me", &[&format!("Authorization: Bearer {}", key.text)]), gateway)
}

#[test]
fn an_ambiguous_response_is_a_502() {
    for bytes in [
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
        "this is no HTTP\r\n\r\n",
    ] {
        let (answer, _gateway) = answered_with(bytes);
        assert_eq!(answer.status, 502, "{bytes}");
        assert!(matches!(answer.code(), Some("GATEWAY_UPSTREAM_INVALID")), "{bytes}: {}", answer.head);
        assert_eq!(answer.json()["status"], "error");
    }
}

#[test]
fn statuses_bodies_and_redirects_pass_unchanged() {
    for (bytes, status, body) in [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc", 404, "abc"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n", 200, "abc"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, "abc"),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        ("HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/x\r\nContent-Length: 0\r\n\r\n", 302, ""),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, "x"),
    ] {
        let (answer, _gateway) = answered_with(bytes);
        assert_eq!((answer.status, answer.text().as_str(), answer.code()), (status, body, None), "{bytes}");
        assert!(answer.head.starts_with("HTTP/1.1 "), "{bytes}");
    }
    let (answer, _gateway) =
        answered_with("HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(answer.header("location"), Some("https://elsewhere.example/x"));
}

#[test]
fn a_location_on_the_upstream_becomes_one_on_the_gateway() {
    let (url, key) = (std::sync::Arc::new(std::sync::OnceLock::<String>::new()), Key::new());
    let known = url.clone();
    let upstream = Upstream::answering(move |_| {
        format!("HTTP/1.1 302 Found\r\nLocation: {}/v2/me?x=1\r\nContent-Length: 0\r\n\r\n", known.get().unwrap())
            .into()
    });
    url.set(upstream.base_url()).unwrap();
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    let answer = gateway.ask("GET /v2/me", &[&format!("Authorization: Bearer {}", key.text)]);
    assert_eq!((answer.status, answer.header("location")), (302, Some("/v2/me?x=1")));
}

#[test]
fn a_silent_upstream_is_a_504_and_an_unreachable_one_is_a_502() {
    let (upstream, key) = (
        Upstream::answering(|_| {
            loop {
                std::thread::park();
            }
        }),
        Key::new(),
    );
    let limits = "[limits]\nupstream_headers = \"200ms\"";
    let gateway = Setup::to(&upstream.base_url()).with(limits).billing("teams", &key).start();
    let own = format!("Authorization: Bearer {}", key.text);
    let answer = gateway.ask("GET /v2/me", &[&own]);
    assert_eq!((answer.status, answer.code()), (504, Some("GATEWAY_UPSTREAM_TIMEOUT")));

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Setup::to(&format!("http://{nobody}")).billing("teams", &key).start();
    let answer = gateway.ask("GET /v2/me", &[&own]);
    assert_eq!((answer.status, answer.code()), (502, Some("GATEWAY_UPSTREAM_UNREACHABLE")));
    assert!(!answer.text().contains(&nobody.port().to_string()), "where upstream is stays here");
    assert_eq!(gateway.access_log(1)[0]["code"], "GATEWAY_UPSTREAM_UNREACHABLE");
}

#[test]
fn the_wait_for_a_response_starts_at_the_end_of_the_body() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let limit = time_limit(150);
    let limits = format!("[limits]\nupstream_headers = \"{limit}\"\nbody = \"{limit}\"");
    let gateway = Setup::to(&upstream.base_url()).with(&limits).billing("teams", &key).start();
    let head = format!("POST /v2/bookings HTTP/1.1\r\nHost: h\r\nX-Api-Key: {}\r\nContent-Length: 2\r\n\r\n", key.text);
    // Until the first response, a new process sends one request at a time.
    assert_eq!(gateway.ask("GET /v2/me", &[&format!("X-Api-Key: {}", key.text)]).status, 200);
    let mut stalled: Vec<_> = (0..10).map(|_| gateway.connect()).collect();
    for connection in &mut stalled {
        connection.send(&head);
    }
    for connection in &mut stalled {
        let answer = connection.read_response();
        assert_eq!(
            (answer.status, answer.code()),
            (408, Some("GATEWAY_REQUEST_TIMEOUT")),
            "it is the caller that is late"
        );
    }

    let limits = format!("[limits]\nupstream_headers = \"{limit}\"");
    let patient = Setup::to(&upstream.base_url()).with(&limits).billing("teams", &key).start();
    let mut slow = patient.connect();
    slow.send(&head);
    // The first gateway gives a body as long as the second gives Cal.com: twice that time passes.
    for _ in 0..2 {
        assert_eq!(gateway.connect().send(&head).read_response().status, 408);
    }
    assert_eq!(slow.send("{}").read_response().status, 200);
}

#[test]
fn a_body_is_streamed_in_both_directions() {
    let (upstream, key) = (Upstream::echoing(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    let mut connection = gateway.connect();
    connection.send(format!(
        "POST /v2/bookings HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        key.text
    ));
    assert_eq!(connection.read_head().status, 200, "the answer begins before the request has ended");
    for piece in ["one", "two", "three"] {
        connection.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
        assert_eq!(connection.read_chunk(), piece.as_bytes());
    }
    connection.send("0\r\n\r\n");
    assert_eq!(connection.read_chunk(), b"");
}

#[test]
fn a_truncated_response_is_truncated_for_the_client_and_logged() {
    let upstream = Upstream::answering(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc".to_vec());
    let key = Key::new();
    let limits = format!("[limits]\nupstream_total = \"{}\"", time_limit(200));
    let gateway = Setup::to(&upstream.base_url()).with(&limits).billing("teams", &key).start();
    let mut connection = gateway.connect();
    connection.send(format!("GET /v2/me HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\n\r\n", key.text));
    assert_eq!(connection.read_head().status, 200);
    assert_eq!(connection.read_to_end(), b"abc");
    let line = &gateway.access_log(1)[0];
    assert_eq!(line["detail"], "the upstream answer took too long");
    assert_eq!(line["bytes_out"], 3);
}

#[test]
fn a_caller_that_leaves_is_a_499() {
    // The sender lives until the end of the test, so the upstream answers nothing before.
    let (_release, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    let upstream = Upstream::answering(move |_| {
        let _ = held.lock().recv();
        crate::harness::OK.into()
    });
    let key = Key::new();
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    let mut connection = gateway.connect();
    connection.send(format!("GET /v2/me HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\n\r\n", key.text));
    crate::harness::eventually("a request in flight", || (upstream.requests().len() == 1).then_some(()));
    connection.reset();
    let lines = gateway.access_log(1);
    assert_eq!((lines.len(), &lines[0]["status"]), (1, &499.into()));
    assert_eq!(gateway.metric("calgate_requests_in_flight", ""), 0);
}
