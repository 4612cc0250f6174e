//! The gateway as an HTTP intermediary: what it adds, rewrites and refuses between a client and Cal.com (RFC 9110).

use std::io::Write as _;
use std::sync::{Arc, OnceLock};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::harness::{Gateway, Key, OK, ReceivedRequest, Setup, UPSTREAM_KEY, Upstream, free_port};

fn gateway(upstream: &Upstream, key: &Key) -> Gateway {
    Setup::to(&upstream.base_url()).billing("teams", key).start()
}

fn bearer(key: &Key) -> String {
    format!("Authorization: Bearer {}", key.text)
}

#[test]
fn each_request_names_the_gateway_and_the_version_it_came_by() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key);
    let other = "Via: 1.0 internal.example, 1.1 calgate-00000000deadbeef (a comment)";
    assert_eq!(gateway.ask("GET /v2/me", &[&bearer(&key)]).status, 200);
    assert_eq!(gateway.ask("GET /v2/me", &[&bearer(&key), other]).status, 200);
    gateway.connect().send(format!("GET /v2/me HTTP/1.0\r\n{}\r\n\r\n", bearer(&key))).read_response();
    let via = |asked: &ReceivedRequest| asked.headers("via").join(" | ");
    let seen: Vec<_> = upstream.requests().iter().map(via).collect();
    let own = seen[0].strip_prefix("1.1 calgate-").expect("the received protocol and a pseudonym");
    assert!(own.len() == 16 && own.bytes().all(|byte| byte.is_ascii_hexdigit()), "{own}");
    assert_eq!(
        seen[1],
        format!("1.1 calgate-00000000deadbeef, 1.1 calgate-{own}"),
        "hosts behind the gateway stay here"
    );
    assert_eq!(seen[2], format!("1.0 calgate-{own}"));
}

#[test]
fn a_request_that_returns_is_refused_as_a_loop() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key);
    gateway.ask("GET /v2/me", &[&bearer(&key)]);
    let via = format!("Via: 1.1 proxy.example, {}", upstream.only_request().headers("via")[0]);
    let answer = gateway.ask("GET /v2/me", &[&bearer(&key), "Via: 1.1 first.example", &via]);
    assert_eq!((answer.status, answer.code()), (508, Some("GATEWAY_LOOP")));
    assert!(answer.text().contains("base_url"), "{}", answer.text());
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn two_gateways_that_forward_to_each_other_end_the_loop() {
    let (port, key) = (free_port(), Key::new());
    let first = Setup::to(&format!("http://127.0.0.1:{port}")).billing("teams", &key).start();
    let listen = format!("address = \"127.0.0.1:{port}\"");
    let second = Setup::to(&format!("http://{}", first.address)).listen(&listen).billing("teams", &key).start();
    let answer = first.ask("GET /v2/slots", &[]);
    assert_eq!(answer.status, 508, "{}", answer.text());
    assert_eq!((first.access_log(2).len(), second.access_log(1).len()), (2, 1));
}

#[test]
fn a_non_ascii_query_is_encoded_and_the_rest_stays_unchanged() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key);
    for (sent, arrives) in [
        ("/v2/bookings?name=Zoë&x=%C3%AB{|}", "/v2/bookings?name=Zo%C3%AB&x=%C3%AB{|}"),
        ("/v2/bookings/?q=日本", "/v2/bookings?q=%E6%97%A5%E6%9C%AC"),
        ("/v2/bookings?", "/v2/bookings?"),
        ("/v2/bookings?a=b%20c+d", "/v2/bookings?a=b%20c+d"),
    ] {
        assert_eq!(gateway.ask(&format!("GET {sent}"), &[&bearer(&key)]).status, 200, "{sent}");
        assert_eq!(upstream.requests().last().unwrap().target(), arrives);
    }
}

#[test]
fn references_to_the_upstream_become_local() {
    let (url, key) = (Arc::new(OnceLock::<String>::new()), Key::new());
    let known = url.clone();
    let upstream = Upstream::answering(move |_| {
        let url = known.get().unwrap();
        let links = format!("Link: <{url}/v2/bookings?skip=2>; rel=\"next\", <https://cal.com/>; rel=help\r\n");
        let location = format!("Content-Location: {url}/v2/bookings?skip=0\r\n");
        format!("HTTP/1.1 200 OK\r\n{links}{location}Content-Length: 0\r\n\r\n").into()
    });
    url.set(upstream.base_url()).unwrap();
    let answer = gateway(&upstream, &key).ask("GET /v2/bookings", &[&bearer(&key)]);
    assert_eq!(answer.header("link"), Some("</v2/bookings?skip=2>; rel=\"next\", <https://cal.com/>; rel=help"));
    assert_eq!(answer.header("content-location"), Some("/v2/bookings?skip=0"));
}

#[test]
fn cal_coms_request_id_is_logged_and_the_gateways_is_returned() {
    let (upstream, key) = (
        Upstream::answering(|asked| {
            let id = if asked.target() == "/v2/me" { "from-cal-com-7" } else { "not {safe}" };
            format!("HTTP/1.1 200 OK\r\nX-Request-Id: {id}\r\nContent-Length: 0\r\n\r\n").into()
        }),
        Key::new(),
    );
    let gateway = gateway(&upstream, &key);
    let answer = gateway.ask("GET /v2/me", &[&bearer(&key), "X-Request-Id: mine"]);
    assert_eq!(answer.header("x-request-id"), Some("mine"));
    gateway.ask("GET /v2/bookings", &[&bearer(&key)]);
    let lines = gateway.access_log(2);
    assert_eq!((&lines[0]["request_id"], &lines[0]["upstream_request_id"]), (&"mine".into(), &"from-cal-com-7".into()));
    assert!(lines[1]["upstream_request_id"].is_null(), "{}", lines[1]);
}

#[test]
fn a_too_long_json_body_is_refused_before_it_is_charged() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway =
        Setup::to(&upstream.base_url()).with("[limits]\njson_body_bytes = 1000").billing("teams", &key).start();
    let (own, short, long) = (bearer(&key), "x".repeat(1000), "x".repeat(1001));
    let post = |kind: &str, body: &str| {
        gateway.connect().ask_with("POST /v2/bookings", &[&own, &format!("Content-Type: {kind}")], body)
    };
    let chunked = |body: &str| {
        let mut connection = gateway.connect();
        let head = "Content-Type: application/json\r\nTransfer-Encoding: chunked";
        connection.send(format!("POST /v2/bookings HTTP/1.1\r\nHost: h\r\n{own}\r\n{head}\r\n\r\n"));
        connection.send(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())).read_response()
    };
    assert_eq!(post("application/json", &short).status, 200);
    assert_eq!(post("text/plain", &long).status, 200, "the limit is that of Cal.com's JSON parser");
    assert_eq!(chunked(&short).status, 200);
    for answer in [post("application/json", &long), post("Application/JSON ; charset=utf-8", &long), chunked(&long)] {
        assert_eq!((answer.status, answer.code()), (413, Some("GATEWAY_BODY_TOO_LARGE")), "{}", answer.text());
        assert!(
            answer.text().contains("1000") && answer.text().contains("limits.json_body_bytes"),
            "{}",
            answer.text()
        );
    }
    assert_eq!(upstream.requests().len(), 3);
}

/// The status and the body that a client gets for an error with `coding` and `body`.
fn error_with(coding: &'static str, body: Vec<u8>) -> (u16, String, bool) {
    let (upstream, key) = (
        Upstream::answering(move |_| {
            let head = "HTTP/1.1 422 Unprocessable Entity\r\nContent-Type: application/json\r\n";
            let mut bytes =
                format!("{head}Content-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
            bytes.extend_from_slice(&body);
            bytes
        }),
        Key::new(),
    );
    let answer = gateway(&upstream, &key).ask("GET /v2/me", &[&bearer(&key)]);
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned(), answer.header("content-encoding").is_some())
}

#[test]
fn an_error_that_cannot_be_decoded_keeps_its_status_and_shows_no_secret() {
    let gzipped = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    for (coding, body) in [
        ("br", UPSTREAM_KEY.as_bytes().to_vec()),
        ("gzip, br", gzipped(UPSTREAM_KEY)),
        ("gzip", UPSTREAM_KEY.as_bytes().to_vec()),
        ("zstd", b"(\xb5/\xfd".to_vec()),
    ] {
        let (status, text, is_coded) = error_with(coding, body);
        assert_eq!((status, is_coded), (422, false), "{coding}");
        assert!(text.contains("422") && !text.contains(UPSTREAM_KEY), "{coding}: {text}");
        serde_json::from_str::<serde_json::Value>(&text).expect("Cal.com's form of an error");
    }
    for coding in ["GZIP", "x-gzip"] {
        let (status, text, is_coded) = error_with(coding, gzipped(&format!("the key {UPSTREAM_KEY} is bad")));
        assert_eq!((status, is_coded, text.as_str()), (422, false, "the key (removed by calgate) is bad"), "{coding}");
    }
    let (status, _, is_coded) = error_with("br", Vec::new());
    assert_eq!((status, is_coded), (422, true), "there is nothing to decode");
}

#[test]
fn a_refusal_has_the_fields_of_the_limit_that_caused_it_or_none() {
    let (upstream, key) = (Upstream::answering(|_| OK.into()), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    gateway.reload(|text| {
        text.replace("plan = \"teams\"\nrequests_per_minute = 100000", "plan = \"teams\"\nrequests_per_minute = 1")
    });
    let own = format!("{}\r\nX-Calgate-Max-Wait: 0", bearer(&key));
    let fields = ["x-ratelimit-remaining-default", "x-ratelimit-reset-default", "ratelimit", "ratelimit-policy"];
    let answer = gateway.ask("GET /v2/me", &[&own]);
    assert!(answer.status == 200 && fields.iter().all(|name| answer.header(name).is_some()), "{}", answer.head);
    let answer = gateway.ask("GET /v2/me", &[&own]);
    assert_eq!((answer.status, answer.code()), (429, Some("GATEWAY_UPSTREAM_BUDGET")));
    assert!(answer.header("retry-after").is_some());
    assert!(fields.iter().all(|name| answer.header(name).is_none()), "{}", answer.head);
    gateway.reload(|text| {
        text.replace("[tiers.roomy]\nrequests_per_minute = 100000", "[tiers.roomy]\nrequests_per_minute = 1")
    });
    let answers: Vec<_> = (0..3).map(|_| gateway.ask("GET /v2/organizations/1/teams", &[&own])).collect();
    assert!(answers.iter().all(|answer| answer.status == 403 && answer.header("ratelimit").is_some()), "{answers:?}");
    let answers: Vec<_> = (0..3).map(|_| gateway.ask("GET /v2/me", &[&own])).collect();
    let limited = answers.iter().find(|answer| answer.code() == Some("GATEWAY_RATE_LIMITED")).expect("an empty bucket");
    assert_eq!(limited.header("x-ratelimit-remaining-default"), Some("0"));
}
