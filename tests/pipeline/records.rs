//! Tests of the record: one line and one count for each request, without text of the client.

use crate::harness::{Key, Setup, Upstream};

fn bearer(key: &Key) -> String {
    format!("Authorization: Bearer {}", key.text)
}

#[test]
fn writes_one_line_and_one_count_for_each_request() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).workers(1).start();
    let own = bearer(&key);
    gateway.ask("GET /v2/bookings/secret-uid?secret=1", &[&own, "X-Request-Id: one"]);
    gateway.ask("GET /v2/organizations/1/teams", &[&own]);
    gateway.ask("GET /v2/unknown-path", &[&bearer(&Key::new())]);
    gateway.ask("BREW /v2/unknown-path", &[&own]);
    let lines = gateway.access_log(4);
    let line = &lines[0];
    for (field, value) in [
        ("request_id", "one"),
        ("client", "127.0.0.1"),
        ("consumer", "billing"),
        ("credential", "main"),
        ("tier", "roomy"),
        ("method", "GET"),
        ("endpoint", "/v2/bookings/{bookingUid}"),
        ("code", "-"),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    assert_eq!((&line["status"], &line["bytes_out"]), (&200.into(), &20.into()));
    assert!(line["gateway_ms"].is_f64() && line["upstream_ms"].is_f64() && line["total_ms"].is_f64(), "{line}");
    assert_eq!((&lines[1]["status"], &lines[1]["code"]), (&403.into(), &"GATEWAY_NOT_ENTITLED".into()));
    assert!(lines[1]["detail"].as_str().unwrap().contains("denies \"Orgs\""), "{}", lines[1]);
    assert_eq!((&lines[2]["consumer"], &lines[2]["status"]), (&"(unknown)".into(), &401.into()));
    let detail = lines[2]["detail"].as_str().unwrap();
    assert!(detail.starts_with("unknown gateway key sha256:") && detail.ends_with("no consumer lists it"), "{detail}");
    assert_eq!(lines[3]["detail"], "no path /v2/unknown-path in the catalog", "an operator sees what is missing");
    let text = format!("{lines:?}{:?}{}", gateway.log(), gateway.ask_admin("GET /metrics", &[]).text());
    for never in ["secret-uid", "secret=1", "BREW", &key.text, "cal_test_0123456789abcdef"] {
        assert!(!text.contains(never), "{never} was written down");
    }
    let count = |labels: &str| gateway.metric("calgate_requests_total", labels);
    assert_eq!(count("endpoint=\"/v2/bookings/{bookingUid}\",code=\"-\",status=\"200\""), 1);
    assert_eq!(count("code=\"GATEWAY_NOT_ENTITLED\",status=\"403\""), 1);
    assert_eq!(count("consumer=\"(unknown)\""), 1);
    assert_eq!(count(""), 4);
    assert_eq!(gateway.metric("calgate_upstream_seconds_count", ""), 1);
    assert_eq!(gateway.metric("calgate_gateway_seconds_count", ""), 4);
}

#[test]
fn observe_mode_forwards_and_counts_denied_requests() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let observe = "[entitlements]\nmode = \"observe\"";
    let gateway = Setup::to(&upstream.base_url()).with(observe).billing("teams", &key).start();
    assert_eq!(gateway.ask("GET /v2/organizations/1/teams", &[&bearer(&key)]).status, 200);
    assert_eq!(gateway.ask("POST /v2/api-keys/refresh", &[&bearer(&key)]).status, 403, "this is no matter of plans");
    assert!(gateway.access_log(1)[0]["observed"].as_str().unwrap().contains("denies \"Orgs\""));
    assert_eq!(gateway.metric("calgate_observed_refusals_total", "/v2/organizations/{orgId}/teams"), 1);
}

#[test]
fn replaces_an_unsafe_request_id_by_a_uuid() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    let long = format!("X-Request-Id: {}", "x".repeat(129));
    for sent in ["X-Request-Id: a b", "X-Request-Id: a\"b", "X-Request-Id: <script>", &long, "A: b"] {
        let answer = gateway.ask("GET /v2/me", &[&bearer(&key), sent]);
        let id = uuid::Uuid::parse_str(answer.header("x-request-id").unwrap()).unwrap();
        assert_eq!(id.get_version_num(), 7, "{sent:.30}");
        assert_eq!(upstream.requests().last().unwrap().headers("x-request-id"), [id.to_string()]);
    }
    let two = gateway.ask("GET /v2/me", &["X-Request-Id: a", "X-Request-Id: b"]);
    assert!(uuid::Uuid::parse_str(two.header("x-request-id").unwrap()).is_ok());
}

#[test]
fn browsers_may_call_only_from_configured_origins() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let listen = "address = \"127.0.0.1:0\"\ncors_origins = [\"https://app.example.com\"]";
    let gateway = Setup::to(&upstream.base_url()).listen(listen).billing("teams", &key).start();
    for (origin, allowed) in [("https://app.example.com", true), ("https://evil.example.com", false)] {
        let header = format!("Origin: {origin}");
        let preflight = gateway.ask("OPTIONS /v2/me", &[&header, "Access-Control-Request-Method: GET"]);
        assert_eq!(preflight.header("access-control-allow-methods").is_some(), allowed, "{origin}");
        let answer = gateway.ask("GET /v2/me", &[&bearer(&key), &header]);
        assert_eq!(answer.header("access-control-allow-origin").is_some(), allowed, "{origin}");
        assert_eq!(answer.header("vary"), Some("Origin"));
        let exposed = answer.header("access-control-expose-headers").unwrap_or_default();
        let is_exposed = |name: &str| exposed.split(", ").any(|exposed| exposed == name);
        for name in [
            "x-request-id",
            "x-ratelimit-limit-default",
            "x-ratelimit-remaining-default",
            "x-ratelimit-reset-default",
            "ratelimit",
            "ratelimit-policy",
        ] {
            assert!(answer.header(name).is_some() && is_exposed(name) == allowed, "{name}: {exposed}");
        }
        for name in ["retry-after", "x-calgate-code", "location", "etag", "allow"] {
            assert_eq!(is_exposed(name), allowed, "{name}: {exposed}");
        }
    }
}
