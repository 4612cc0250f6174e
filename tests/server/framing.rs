//! Framing of HTTP/1.1 requests: the check covers every byte of a connection.

use crate::harness::{Gateway, Key, Setup, Upstream};

fn gateway(upstream: &Upstream, key: &Key) -> Gateway {
    Setup::to(&upstream.base_url()).billing("unrestricted", key).start()
}

fn own(key: &Key) -> String {
    format!("Host: h\r\nX-Api-Key: {}\r\n", key.text)
}

/// Heads that a proxy in front of the gateway could read in another way.
fn bad_heads(own: &str) -> Vec<String> {
    let post = format!("POST /v2/bookings HTTP/1.1\r\n{own}");
    let framing = |fields: &str| format!("{post}{fields}\r\n\r\n0\r\n\r\n");
    vec![
        framing("Content-Length: 5\r\nTransfer-Encoding: chunked"),
        framing("Transfer-Encoding: chunked\r\nContent-Length: 5"),
        framing("Transfer-Encoding: gzip, chunked"),
        framing("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        framing("Transfer-Encoding: xchunked"),
        framing("Transfer-Encoding:\tchunked\r\nTransfer-Encoding: identity"),
        framing("Content-Length: 5\r\nContent-Length: 6"),
        framing("Content-Length: 5, 5"),
        framing("Content-Length: +5"),
        framing("Content-Length: 0x5"),
        framing("Content-Length:"),
        framing("Content-Length: 99999999999999999999"),
        framing("Content-Length : 5"),
        format!("GET /v2/me HTTP/1.1\n{own}\r\n"),
        format!("GET /v2/me HTTP/1.1\r\nHost: h\nX-A: b\r\n{own}\r\n"),
        format!("GET /v2/me HTTP/1.1\r\n{own}\n"),
        format!("GET /v2/me#fragment HTTP/1.1\r\n{own}\r\n"),
        "\n".to_owned() + &format!("GET /v2/me HTTP/1.1\r\n{own}\r\n"),
    ]
}

#[test]
fn a_head_is_checked_whatever_came_before_it_on_the_connection() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key);
    let own = own(&key);
    let get = format!("GET /v2/me HTTP/1.1\r\n{own}\r\n");
    let post = format!("POST /v2/bookings HTTP/1.1\r\n{own}Content-Length: 2\r\n\r\n{{}}");
    let chunked = format!(
        "POST /v2/bookings HTTP/1.1\r\n{own}Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n{{}}\r\n0\r\nTrailer: x\r\n\r\n"
    );
    let before = [
        String::new(),
        "\r\n\r\n".to_owned(),
        get.clone(),
        format!("{get}\r\n"),
        format!("{post}\r\n"),
        format!("{post}{get}"),
        format!("{chunked}\r\n\r\n"),
        chunked,
    ];
    let mut expected = 0;
    for head in bad_heads(&own) {
        for before in &before {
            let good = before.matches(" HTTP/1.1\r\n").count();
            // In one piece, and each request when the one before is answered.
            for at_once in [true, false] {
                let mut client = gateway.connect();
                client.send(if at_once { format!("{before}{head}") } else { before.clone() });
                for _ in 0..good {
                    assert_eq!(client.read_response().status, 200, "{before:?} before {head:?}");
                }
                if !at_once {
                    client.send(&head);
                }
                let answer = client.read_response();
                assert_eq!(
                    (answer.status, answer.code()),
                    (400, Some("GATEWAY_BAD_REQUEST")),
                    "{head:?} behind {before:?}"
                );
                assert_eq!(client.read_to_end(), b"", "nothing is read behind {head:?}");
                expected += good;
            }
        }
    }
    assert_eq!(upstream.requests().len(), expected, "no bad request went on");
}

#[test]
fn empty_lines_between_requests_are_ignored() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key);
    let get = format!("GET /v2/me HTTP/1.1\r\n{}\r\n", own(&key));
    let mut client = gateway.connect();
    for stray in ["", "\r\n", "\r\n\r\n"] {
        client.send(format!("{stray}{get}{stray}"));
        assert_eq!(client.read_response().status, 200, "{stray:?}");
    }
}

#[test]
fn a_chunked_body_with_malformed_framing_is_400() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key);
    let head = format!("POST /v2/bookings HTTP/1.1\r\n{}Transfer-Encoding: chunked\r\n\r\n", own(&key));
    let good = [
        "2\r\n{}\r\n0\r\n\r\n",
        "02;a\r\n{}\r\n000\r\n\r\n",
        "2 ; a=\"b c\"\r\n{}\r\n0;x\r\n\r\n",
        "1\r\n{\r\n1\r\n}\r\n0\r\nA: b\r\nC: d\r\n\r\n",
    ];
    for body in good {
        let mut client = gateway.connect();
        assert_eq!(client.send(format!("{head}{body}")).read_response().status, 200, "{body:?}");
        assert_eq!(client.send(format!("{head}{body}")).read_response().status, 200, "{body:?} once more");
    }
    let bad = [
        "\r\n",
        "2\n{}\r\n0\r\n\r\n",
        "2;a\n{}\r\n0\r\n\r\n",
        "2;a\rb\r\n{}\r\n0\r\n\r\n",
        "2;a\0b\r\n{}\r\n0\r\n\r\n",
        "2 \r\n{}\r\n0\r\n\r\n",
        "2 x\r\n{}\r\n0\r\n\r\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "+2\r\n{}\r\n0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        "10000000000000002\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}x\r\n0\r\n\r\n",
        "2\r\n{}\n0\r\n\r\n",
        "2\r\n{}0\r\n\r\n",
        "2\r\n{}\r\n0\r\nA: b\n\r\n",
        "2\r\n{}\r\n0\r\n\n",
        "2\r\n{}\r\ng\r\n",
    ];
    for body in bad {
        let mut client = gateway.connect();
        let answer = client.send(format!("{head}{body}")).read_response();
        assert_eq!((answer.status, answer.code()), (400, Some("GATEWAY_BAD_REQUEST")), "{body:?}");
        assert_eq!(client.read_to_end(), b"", "nothing is read behind {body:?}");
    }
    let long = format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "a".repeat(5000));
    assert_eq!(gateway.connect().send(format!("{head}{long}")).read_response().status, 400);
}

#[test]
fn a_get_keeps_its_body() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key);
    let own = own(&key);
    let chunked = format!("GET /v2/me HTTP/1.1\r\n{own}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n");
    let sized = format!("GET /v2/me HTTP/1.1\r\n{own}Content-Length: 2\r\n\r\n{{}}");
    let mut client = gateway.connect();
    assert_eq!(client.send(chunked).read_response().status, 200);
    assert_eq!(client.send(sized).read_response().status, 200);
    let bodies: Vec<_> =
        upstream.requests().iter().map(|asked| String::from_utf8(asked.body.clone()).unwrap()).collect();
    assert_eq!(bodies, ["2\r\n{}\r\n0\r\n\r\n", "{}"]);
}

#[test]
fn empty_lines_do_not_begin_a_head() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let limits = "[limits]\nhead = \"100ms\"\nidle = \"1h\"";
    let gateway = Setup::to(&upstream.base_url()).with(limits).billing("teams", &key).start();
    let get = format!("GET /v2/me HTTP/1.1\r\n{}\r\n", own(&key));
    let mut idle = gateway.connect();
    assert_eq!(idle.send(format!("{get}\r\n")).read_response().status, 200);
    let late = gateway.connect().send("GET /v2/me HTTP/1.1\r\nHost: h\r\n").read_response();
    assert_eq!(late.status, 408, "a head that began later is overdue");
    assert_eq!(idle.send(&get).read_response().status, 200);
}

#[test]
fn a_chunk_size_that_comes_in_pieces_is_not_cut_short() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    let mut connection = gateway.connect();
    let head = "Content-Type: text/plain\r\nTransfer-Encoding: chunked";
    connection.send(format!("POST /v2/bookings HTTP/1.1\r\nHost: h\r\nX-Api-Key: {}\r\n{head}\r\n\r\n", key.text));
    connection.send("0".repeat(70)).send("3e8\r\n");
    let answer = connection.read_response();
    assert_eq!((answer.status, answer.code()), (400, Some("GATEWAY_BAD_REQUEST")), "{}", answer.head);
    assert!(connection.is_closed());
}

#[test]
fn a_query_with_a_character_that_has_to_be_encoded_is_told_so() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    for character in ["\"", "<", ">"] {
        let answer = gateway.ask(&format!("GET /v2/bookings?x={character}"), &[&format!("X-Api-Key: {}", key.text)]);
        assert_eq!((answer.status, answer.code()), (400, Some("GATEWAY_BAD_REQUEST")), "{}", answer.head);
        assert!(answer.text().contains("query") && answer.text().contains("percent-encoded"), "{}", answer.text());
    }
    assert!(upstream.requests().is_empty());
}
