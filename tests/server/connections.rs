//! Limits of a client connection: time, size and number.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::harness::{Gateway, Key, RawConnection, Setup, Upstream, eventually, scaled, time_limit};

fn gateway(upstream: &Upstream, key: &Key, limits: &str) -> Gateway {
    let limits = format!("[limits]\n{limits}");
    Setup::to(&upstream.base_url()).with(&limits).billing("unrestricted", key).start()
}

fn bearer(key: &Key) -> String {
    format!("Authorization: Bearer {}", key.text)
}

#[test]
fn a_connection_serves_many_requests_also_when_they_come_at_once() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key, "");
    let mut connection = gateway.connect();
    for _ in 0..3 {
        assert_eq!(connection.ask("GET /v2/me", &[&bearer(&key)]).status, 200);
    }
    let request = format!("GET /v2/me HTTP/1.1\r\nHost: h\r\n{}\r\n\r\n", bearer(&key));
    connection.send(request.repeat(3));
    for _ in 0..3 {
        assert_eq!(connection.read_response().status, 200);
    }
    assert_eq!(upstream.requests().len(), 6);
}

#[test]
fn a_request_may_begin_in_the_segment_of_the_one_before_and_end_anywhere() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key, "");
    let own = format!("Host: h\r\nUser-Agent: #1\r\n{}\r\n", bearer(&key));
    let get = format!("GET /v2/me HTTP/1.1\r\n{own}\r\n");
    let post = format!("POST /v2/bookings HTTP/1.1\r\n{own}Content-Length: 2\r\n\r\n{{}}");
    for first in [&get, &post] {
        for cut in 1..get.len() {
            let mut connection = gateway.connect();
            connection.send(format!("{first}{}", &get[..cut]));
            assert_eq!(connection.read_response().status, 200);
            connection.send(&get[cut..]);
            assert_eq!(connection.read_response().status, 200, "cut at {cut}: {:?}", &get[cut..]);
        }
    }
    let mut connection = gateway.connect();
    connection.send(&post);
    assert_eq!(connection.read_response().status, 200);
    connection.send(get.replace('\r', ""));
    assert_eq!(connection.read_response().status, 400, "and one that comes by itself is looked at");
}

#[test]
fn sizes_are_bounded_each_with_a_refusal_of_its_own() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key, "target_bytes = 200\nhead_bytes = 2000\nbody_bytes = 10");
    let own = bearer(&key);
    let cases = [
        (format!("GET /v2/me?{}", "x".repeat(200)), vec![own.clone()], 414, "GATEWAY_TARGET_TOO_LONG"),
        (format!("GET /v2/me?{}", "x".repeat(20_000)), vec![own.clone()], 414, "GATEWAY_TARGET_TOO_LONG"),
        ("GET /v2/me".to_owned(), vec![own.clone(), format!("A: {}", "x".repeat(2000))], 431, "GATEWAY_HEAD_TOO_LARGE"),
        (
            "GET /v2/me".to_owned(),
            vec![own.clone(), format!("A: {}", "x".repeat(99_000))],
            431,
            "GATEWAY_HEAD_TOO_LARGE",
        ),
        ("GET /v2/me".to_owned(), vec!["a: b".to_owned(); 300], 431, "GATEWAY_HEAD_TOO_LARGE"),
        (
            "POST /v2/bookings".to_owned(),
            vec![own.clone(), "Content-Length: 11".to_owned()],
            413,
            "GATEWAY_BODY_TOO_LARGE",
        ),
    ];
    for (request, headers, status, code) in cases {
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        let answer = gateway.ask(&request, &headers);
        assert_eq!((answer.status, answer.code()), (status, Some(code)), "{request:.40}");
        assert_eq!(answer.json()["error"]["code"], code);
        let message = answer.json()["error"]["message"].to_string();
        let named = [
            ("200 bytes", "limits.target_bytes"),
            ("2000 bytes", "limits.head_bytes"),
            ("10 bytes", "limits.body_bytes"),
        ];
        let by_count = message.contains("more than 100 header fields");
        assert!(by_count || named.iter().any(|(n, key)| message.contains(n) && message.contains(key)), "{message}");
    }
    let details: Vec<_> =
        gateway.access_log(6).iter().map(|line| line["detail"].as_str().unwrap().to_owned()).collect();
    assert!(details.iter().any(|detail| detail == "limits.target_bytes = 200"), "{details:?}");
    assert!(details.iter().any(|detail| detail == "limits.head_bytes = 2000"), "{details:?}");
    assert!(details.iter().any(|detail| detail == "limits.body_bytes = 10"), "{details:?}");
    let chunked = format!(
        "POST /v2/bookings HTTP/1.1\r\nHost: h\r\n{own}\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n"
    );
    let answer = gateway.connect().send(chunked).read_response();
    assert_eq!((answer.status, answer.code()), (413, Some("GATEWAY_BODY_TOO_LARGE")));
    assert_eq!(gateway.connect().ask_with("POST /v2/bookings", &[&own], "0123456789").status, 200);
}

#[test]
fn a_refusal_arrives_although_the_caller_goes_on_sending() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key, "body_bytes = 10");
    let body = "x".repeat(4_000_000);
    for _ in 0..10 {
        let answer = gateway.connect().ask_with("POST /v2/bookings", &[&bearer(&key)], &body);
        assert_eq!((answer.status, answer.code()), (413, Some("GATEWAY_BODY_TOO_LARGE")));
        let answer = gateway.connect().ask_with("POST /v2/nothing", &[&bearer(&key)], &body);
        assert_eq!((answer.status, answer.code()), (413, Some("GATEWAY_BODY_TOO_LARGE")));
        let answer = gateway.connect().ask("GET /v2/me", &[&format!("A: {}", "x".repeat(400_000))]);
        assert_eq!((answer.status, answer.code()), (431, Some("GATEWAY_HEAD_TOO_LARGE")));
    }
}

#[test]
fn a_caller_that_says_nothing_or_stalls_is_let_go() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let (limit, shown) = (time_limit(150), format!("{:?}", scaled(Duration::from_millis(150))));
    let limits = ["first_byte", "head", "body", "idle"].map(|name| format!("{name} = \"{limit}\"")).join("\n");
    let gateway = gateway(&upstream, &key, &limits);
    let own = bearer(&key);

    assert!(gateway.connect().is_closed(), "nothing was sent");
    assert!(gateway.connect().send("PRI * HTTP/2.0\r\n\r\nS").is_closed(), "half a preface was sent");
    let answer = gateway.connect().send("GET /v2/me HTTP/1.1\r\nHost: h\r\n").read_response();
    assert_eq!((answer.status, answer.code()), (408, Some("GATEWAY_REQUEST_TIMEOUT")));
    assert!(answer.text().contains(&format!("head did not arrive within {shown} (limits.head)")), "{}", answer.text());
    let half = format!("POST /v2/bookings HTTP/1.1\r\nHost: h\r\n{own}\r\nContent-Length: 5\r\n\r\n{{}}");
    let answer = gateway.connect().send(half).read_response();
    assert_eq!((answer.status, answer.code()), (408, Some("GATEWAY_REQUEST_TIMEOUT")));
    assert!(answer.text().contains(&format!("body did not arrive within {shown} (limits.body)")), "{}", answer.text());
    let mut idle = gateway.connect();
    assert_eq!(idle.ask("GET /v2/me", &[&own]).status, 200);
    assert!(idle.is_closed(), "no second request was sent");
}

#[test]
fn the_head_of_a_later_request_has_the_same_time_as_that_of_the_first() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key, &format!("head = \"{}\"\nidle = \"1h\"", time_limit(250)));
    let half = "GET /v2/me HTTP/1.1\r\nHost: h\r\n";
    let mut kept = gateway.connect();
    for _ in 0..2 {
        assert_eq!(kept.ask("GET /v2/me", &[&bearer(&key)]).status, 200);
        assert_eq!(gateway.connect().send(half).read_response().status, 408, "long enough for all to be looked at");
    }
    let answer = kept.send(half).read_response();
    assert_eq!((answer.status, answer.code()), (408, Some("GATEWAY_REQUEST_TIMEOUT")));
    assert!(kept.is_closed());
}

/// Starts an upstream that answers after the head, and then reads the body of `length` bytes. Returns its address and its
/// number of connections.
fn hasty_upstream(length: usize) -> (String, Arc<AtomicUsize>) {
    let counted = Arc::<AtomicUsize>::default();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = counted.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            connections.fetch_add(1, Ordering::Relaxed);
            std::thread::spawn(move || answer_hastily(stream.unwrap(), length));
        }
    });
    (url, counted)
}

fn answer_hastily(mut stream: TcpStream, length: usize) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        stream.write_all(crate::harness::OK.as_bytes())?;
        let mut body = vec![0; if head.starts_with(b"POST") { length } else { 0 }];
        stream.read_exact(&mut body)?;
    }
}

#[test]
fn a_body_that_comes_behind_its_answer_is_no_request() {
    let body = "{\n  \"title\": \"#1\",\n  \"more\": true\n}\n".repeat(100);
    let key = Key::new();
    let (upstream, connections) = hasty_upstream(body.len());
    let gateway = Setup::to(&upstream).billing("unrestricted", &key).workers(1).start();
    let mut connection = gateway.connect();
    let head =
        format!("POST /v2/bookings HTTP/1.1\r\nHost: h\r\n{}\r\nContent-Length: {}\r\n\r\n", bearer(&key), body.len());
    assert_eq!(connection.send(head).read_response().status, 200, "answered before the body came");
    connection.send(&body);
    assert_eq!(connection.ask("GET /v2/me", &[&bearer(&key)]).status, 200, "the next answer is the next request's");
    assert_eq!(gateway.access_log(2).len(), 2);
    assert_eq!(connections.load(Ordering::Relaxed), 2, "nothing follows on a connection that was answered too early");
    assert_eq!(connection.ask("GET /v2/me", &[&bearer(&key)]).status, 200);
    assert_eq!(connections.load(Ordering::Relaxed), 2, "others are used again");
}

#[test]
fn a_refusal_says_that_the_connection_ends_where_it_leaves_a_body_unread() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key, "");
    let mut connection = gateway.connect();
    let answer = connection.ask_with("POST /v2/nothing", &[&bearer(&key)], "{\n\"a\": \"#\"\n}");
    assert_eq!((answer.status, answer.header("connection")), (404, Some("close")));
    assert_eq!(connection.read_to_end(), b"", "no second answer");
    let mut connection = gateway.connect();
    assert_eq!(connection.ask("GET /v2/nothing", &[&bearer(&key)]).header("connection"), None);
    assert_eq!(connection.ask_with("POST /v2/bookings", &[&bearer(&key)], "{}").header("connection"), None);
}

#[test]
fn a_caller_that_does_not_take_its_answer_is_let_go() {
    let (key, length) = (Key::new(), 40_000_000);
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + length, b'x');
    let upstream = Upstream::answering(move |_| answer.clone());
    let gateway = gateway(&upstream, &key, "upstream_total = \"2s\"\nhead = \"1s\"");
    let mut connection = gateway.connect();
    connection.send(format!("GET /v2/me HTTP/1.1\r\nHost: h\r\n{}\r\n\r\n", bearer(&key)));
    let line = &gateway.access_log(1)[0];
    assert_eq!((&line["status"], &line["detail"]), (&499.into(), &serde_json::Value::Null), "{line}");
    assert_eq!(gateway.metric("calgate_requests_in_flight", ""), 0);
}

#[test]
fn a_connection_ends_at_its_age_after_the_request_it_is_in() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key, &format!("connection_age = \"{}\"", time_limit(100)));
    let mut connection = gateway.connect();
    let mut served = 0;
    while !connection.send(format!("GET /v2/me HTTP/1.1\r\nHost: h\r\n{}\r\n\r\n", bearer(&key))).is_closed() {
        assert_eq!(connection.read_response().status, 200);
        served += 1;
    }
    assert!(served > 0);
}

#[test]
fn connections_and_requests_in_flight_are_bounded() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    let upstream = Upstream::answering(move |_| {
        let _ = held.lock().recv();
        b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()
    });
    let key = Key::new();
    // One worker accepts in the order in which callers connect.
    let limits = "[limits]\nconnections = 3\nin_flight = 1";
    let gateway = Setup::to(&upstream.base_url()).with(limits).billing("teams", &key).workers(1).start();
    let request = format!("GET /v2/me HTTP/1.1\r\nHost: h\r\n{}\r\n\r\n", bearer(&key));
    let (mut first, mut second) = (gateway.connect(), gateway.connect());
    first.send(&request);
    eventually("a request in flight", || (upstream.requests().len() == 1).then_some(()));
    let answer = second.send(&request).read_response();
    assert_eq!((answer.status, answer.code()), (503, Some("GATEWAY_OVERLOADED")));
    assert_eq!(answer.header("retry-after"), Some("1"));
    let _third = gateway.connect();
    let answer = gateway.connect().read_response();
    assert_eq!((answer.status, answer.code()), (503, Some("GATEWAY_OVERLOADED")), "a fourth connection");
    assert_eq!(gateway.metric("calgate_connections_refused_total", ""), 1);
    let no_request = |line: &serde_json::Value| line["method"] == "-" && line["status"] == 503;
    assert!(gateway.access_log(2).iter().any(no_request), "where no request was read, the log makes up none");
    assert_eq!(gateway.ask_admin("GET /readyz", &[]).status, 200, "operators have places of their own");
    release.send(()).unwrap();
    assert_eq!(first.read_response().status, 204);
}

#[test]
fn few_open_files_are_made_more_where_the_system_lets_them() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let few = ["sh", "-c", "ulimit -S -n 64 && exec \"$@\"", "sh"];
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).through(&few).start();
    let mut callers: Vec<_> = (0..60).map(|_| gateway.connect()).collect();
    for caller in &mut callers {
        assert_eq!(caller.ask("GET /v2/me", &[&bearer(&key)]).status, 200);
    }
    assert_eq!(gateway.ask_admin("GET /livez", &[]).status, 200);
}

#[test]
fn no_more_connections_are_taken_than_there_can_be_open_files_for() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let few = ["sh", "-c", "ulimit -n 256 && exec \"$@\"", "sh"];
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).workers(1).through(&few).start();
    let warning: serde_json::Value = serde_json::from_str(&gateway.wait_for_log("limit of open files")).unwrap();
    let room = warning["connections"].as_u64().unwrap();
    let mut callers: Vec<_> = (0..250).map(|_| gateway.connect()).collect();
    crate::harness::eventually("the others' end", || {
        (gateway.metric("calgate_connections_refused_total", "") == 250 - room).then_some(())
    });
    assert_eq!(gateway.ask_admin("GET /livez", &[]).status, 200, "operators have files of their own");
    assert_eq!(callers[0].ask("GET /v2/me", &[&bearer(&key)]).status, 200, "and so has Cal.com");
    callers.clear();
    let request = format!("GET /v2/me HTTP/1.1\r\nHost: h\r\n{}\r\n\r\n", bearer(&key));
    crate::harness::eventually("room again", || {
        let mut connection = gateway.connect();
        (!connection.send(&request).is_closed() && connection.read_response().status == 200).then_some(())
    });
}

#[test]
fn a_unix_socket_serves_as_well() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calgate.sock");
    let listen = format!("address = \"unix:{}\"", path.display());
    let _gateway = Setup::to(&upstream.base_url()).listen(&listen).billing("teams", &key).start();
    let mut stream = UnixStream::connect(&path).unwrap();
    let request = format!("GET /v2/me HTTP/1.1\r\nHost: h\r\n{}\r\nConnection: close\r\n\r\n", bearer(&key));
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[test]
fn expect_continue_is_answered_before_the_body_is_sent() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key, "");
    let mut connection = gateway.connect();
    let head = format!(
        "POST /v2/bookings HTTP/1.1\r\nHost: h\r\n{}\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        bearer(&key)
    );
    assert_eq!(connection.send(head).read_head().status, 100);
    assert_eq!(connection.send("{}").read_response().status, 200);
    assert_eq!(upstream.only_request().body, b"{}");
}

#[test]
fn the_admin_listener_is_apart_from_callers() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key, "");
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(gateway.ask_admin(&format!("GET {path}"), &[]).status, 200, "{path}");
        assert_eq!(gateway.ask(&format!("GET {path}"), &[&bearer(&key)]).status, 404, "{path}");
    }
    assert_eq!(RawConnection::connect(gateway.admin).ask("GET /v2/me", &[&bearer(&key)]).status, 404);
}

#[test]
fn bodies_that_do_not_come_keep_nobody_from_the_admin_listener() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key, "body = \"1s\"");
    let begun =
        "POST /explain HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let mut flood: Vec<_> = (0..100).map(|_| RawConnection::connect(gateway.admin)).collect();
    for operator in &mut flood {
        operator.send(begun);
    }
    for operator in &mut flood {
        let answer = operator.read_response();
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
        assert!(operator.is_closed());
    }
    drop(flood);
    eventually("room", || (gateway.ask_admin("GET /livez", &[]).status == 200).then_some(()));
}
