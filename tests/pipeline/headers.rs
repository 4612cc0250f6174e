//! Tests of header attacks: no field of a client identifies it to Cal.com or redirects the request.

use crate::harness::{Gateway, Key, Setup, Upstream};

fn gateway(upstream: &Upstream, key: &Key) -> Gateway {
    Setup::to(&upstream.base_url()).billing("unrestricted", key).start()
}

#[test]
fn only_the_injected_credential_reaches_upstream() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key);
    let own = format!("X-Api-Key: {}", key.text);
    let tricks = [
        &*own,
        "Authorization: Bearer cal_live_mine",
        "x-cal-client-id: mine",
        "x-cal-secret-key: mine",
        "X_CAL_CLIENT_ID: mine",
        "x_cal_secret_key: mine",
        "X_Api_Key: mine",
        "x-cal_secret-key: mine",
        "Cookie: session=mine",
        "Cookie2: session=mine",
        "Proxy-Authorization: Basic bWluZQ==",
        "Proxy-Connection: keep-alive",
        "Forwarded: for=mine",
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-Host: mine",
        "X-Forwarded-Proto: http",
        "X_Forwarded_For: 203.0.113.9",
        "CF-Connecting-IP: 203.0.113.9",
        "CF-IPCountry: XX",
        "cf_connecting_ip: 203.0.113.9",
        "True-Client-IP: 203.0.113.9",
        "X-Real-IP: 203.0.113.9",
        "X-HTTP-Method-Override: DELETE",
        "X-HTTP-Method: DELETE",
        "X-Method-Override: DELETE",
        "X-Original-URL: /mine",
        "X-Rewrite-URL: /mine",
        "X-Calgate-Code: mine",
        "Expect: 200-mine",
        "Via: 1.1 mine",
        "TE: trailers",
        "Accept: application/json",
        "User-Agent: billing/1.0",
        "X-Request-Id: abc-123",
    ];
    let answer = gateway.ask("GET /v2/me", &tricks);
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert_eq!(answer.header("x-request-id"), Some("abc-123"));
    let mut arrived = upstream.only_request().headers;
    // The gateway adds itself there. `forward::hop` tests that.
    arrived.retain(|(name, _)| name != "via");
    arrived.sort();
    let host = upstream.base_url().replace("http://", "");
    let expected = [
        ("accept", "application/json"),
        ("authorization", "Bearer cal_test_0123456789abcdef"),
        ("host", &host),
        ("user-agent", "billing/1.0"),
        ("x-request-id", "abc-123"),
    ];
    assert_eq!(arrived, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn obeys_every_connection_line_and_keeps_the_credential() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key);
    let own = format!("Authorization: Bearer {}", key.text);
    let lines = [
        &*own,
        "Connection: authorization, keep-alive",
        "Connection: accept",
        "Connection:  ,User-Agent ,, host, x-request-id",
        "Accept: text/html",
        "User-Agent: mine",
        "Accept-Language: de",
    ];
    assert_eq!(gateway.ask("GET /v2/me", &lines).status, 200);
    let arrived = upstream.only_request();
    assert_eq!(arrived.headers("authorization"), ["Bearer cal_test_0123456789abcdef"]);
    assert_eq!(arrived.headers("accept-language"), ["de"]);
    for gone in ["accept", "user-agent", "connection", "keep-alive"] {
        assert_eq!(arrived.headers(gone), Vec::<&str>::new(), "{gone}");
    }
    assert_eq!((arrived.headers("host").len(), arrived.headers("x-request-id").len()), (1, 1));
}

#[test]
fn rejects_an_ambiguous_caller_or_body_length() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key);
    let (own, other) = (format!("Authorization: Bearer {}", key.text), format!("X-Api-Key: {}", Key::new().text));
    let post = "POST /v2/bookings HTTP/1.1\r\n";
    let cases = [
        ("two Authorization lines", format!("GET /v2/me HTTP/1.1\r\nHost: h\r\n{own}\r\n{own}\r\n\r\n")),
        ("two different keys", format!("GET /v2/me HTTP/1.1\r\nHost: h\r\n{own}\r\n{other}\r\n\r\n")),
        ("no Host", format!("GET /v2/me HTTP/1.1\r\n{own}\r\n\r\n")),
        ("two Hosts", format!("GET /v2/me HTTP/1.1\r\nHost: a\r\nHost: b\r\n{own}\r\n\r\n")),
        ("bare line feeds", format!("GET /v2/me HTTP/1.1\nHost: h\n{own}\n\n")),
        ("one bare line feed", format!("GET /v2/me HTTP/1.1\r\nHost: h\r\nA: b\n{own}\r\n\r\n")),
        ("a space before the colon", format!("GET /v2/me HTTP/1.1\r\nHost: h\r\nAccept : x\r\n{own}\r\n\r\n")),
        ("a folded line", format!("GET /v2/me HTTP/1.1\r\nHost: h\r\nAccept: x\r\n y\r\n{own}\r\n\r\n")),
        ("two lengths", format!("{post}Host: h\r\nContent-Length: 2\r\nContent-Length: 3\r\n{own}\r\n\r\n{{}}x")),
        (
            "length and chunks",
            format!("{post}Host: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n{own}\r\n\r\n0\r\n\r\n"),
        ),
        (
            "chunks and length",
            format!("{post}Host: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n{own}\r\n\r\n0\r\n\r\n"),
        ),
        ("a coding that is not chunked", format!("{post}Host: h\r\nTransfer-Encoding: gzip\r\n{own}\r\n\r\n")),
        (
            "a coding below chunks",
            format!("{post}Host: h\r\nTransfer-Encoding: gzip, chunked\r\n{own}\r\n\r\n0\r\n\r\n"),
        ),
        (
            "chunks of chunks",
            format!(
                "{post}Host: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n{own}\r\n\r\n0\r\n\r\n"
            ),
        ),
        ("a length that is no number", format!("{post}Host: h\r\nContent-Length: +2\r\n{own}\r\n\r\n{{}}")),
        (
            "two versions",
            format!(
                "GET /v2/me HTTP/1.1\r\nHost: h\r\ncal-api-version: 2024-08-13\r\ncal-api-version: 2024-06-14\r\n{own}\r\n\r\n"
            ),
        ),
        (
            "a version that is not a date",
            format!("GET /v2/bookings HTTP/1.1\r\nHost: h\r\ncal-api-version: 2030-02-30\r\n{own}\r\n\r\n"),
        ),
    ];
    for (trick, request) in cases {
        let mut connection = gateway.connect();
        for piece in request.as_bytes().chunks(7) {
            connection.send(piece);
        }
        let answer = connection.read_response();
        assert_eq!((answer.status, answer.code()), (400, Some("GATEWAY_BAD_REQUEST")), "{trick}: {}", answer.head);
        assert_eq!(answer.json()["status"], "error", "{trick}");
        assert!(answer.header("x-request-id").is_some(), "{trick}");
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn drops_trailers() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key);
    let request = format!(
        "POST /v2/bookings HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\
         Trailer: x-cal-secret-key\r\n\r\n2\r\n{{}}\r\n0\r\nx-cal-secret-key: mine\r\nAuthorization: Bearer mine\r\n\r\n",
        key.text
    );
    assert_eq!(gateway.connect().send(request).read_response().status, 200);
    let arrived = upstream.only_request();
    assert_eq!(arrived.headers("trailer"), Vec::<&str>::new());
    assert_eq!(String::from_utf8(arrived.body).unwrap(), "2\r\n{}\r\n0\r\n\r\n");
}

#[test]
fn removes_the_fields_of_the_upstream_hop_from_responses() {
    let upstream = Upstream::answering(|_| {
        "HTTP/1.1 302 Found\r\nLocation: HOST/v2/me?x=1\r\nSet-Cookie: session=1\r\nKeep-Alive: timeout=5\r\n\
         Connection: X-Hop\r\nX-Hop: 1\r\nX-RateLimit-Limit-Default: 999\r\nX-RateLimit-Remaining-Default: 998\r\n\
         Access-Control-Allow-Origin: *\r\nX-Calgate-Code: GATEWAY_FORGED\r\nStrict-Transport-Security: max-age=1\r\n\
         X-Request-Id: theirs\r\nProxy-Authenticate: Basic\r\nX-Keep: yes\r\nContent-Length: 0\r\n\r\n"
            .into()
    });
    let key = Key::new();
    let gateway = gateway(&upstream, &key);
    let answer = gateway.ask("GET /v2/me", &[&format!("X-Api-Key: {}", key.text)]);
    assert_eq!((answer.status, answer.header("x-keep")), (302, Some("yes")));
    assert_eq!(answer.header("x-ratelimit-limit-default"), Some("100000"));
    for gone in
        ["set-cookie", "x-hop", "access-control-allow-origin", "strict-transport-security", "proxy-authenticate"]
    {
        assert_eq!(answer.headers(gone), Vec::<&str>::new(), "{gone}");
    }
    assert_eq!(answer.code(), None);
    assert_ne!(answer.header("x-request-id"), Some("theirs"));
}
