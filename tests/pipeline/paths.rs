//! Tests of attacks by the request target: calgate rejects each, or sends exactly the path that it decided about.

use crate::harness::{Gateway, Key, Setup, Upstream};

fn gateway(upstream: &Upstream, key: &Key, plan: &str) -> Gateway {
    Setup::to(&upstream.base_url()).billing(plan, key).start()
}

fn bearer(key: &Key) -> String {
    format!("Authorization: Bearer {}", key.text)
}

#[test]
fn sends_every_spelling_of_a_path_as_in_the_template() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key, "unrestricted");
    let spellings = [
        ("/v2/bookings/AbC/cancel", "/v2/bookings/AbC/cancel"),
        ("/V2/BOOKINGS/AbC/CANCEL", "/v2/bookings/AbC/cancel"),
        ("/v2/bookings/AbC/cancel/", "/v2/bookings/AbC/cancel"),
        ("/v2/b%6fokings/%41bC/cancel", "/v2/bookings/AbC/cancel"),
        ("/v2/bookings/a%20b%c3%a9/cancel", "/v2/bookings/a%20b%C3%A9/cancel"),
        ("/v2/bookings/AbC/cancel?a=%2e%2e/&b=%00;c", "/v2/bookings/AbC/cancel?a=%2e%2e/&b=%00;c"),
        ("/v2/bookings/AbC/cancel?", "/v2/bookings/AbC/cancel?"),
    ];
    for (sent, _) in spellings {
        assert_eq!(gateway.connect().ask_with(&format!("POST {sent}"), &[&bearer(&key)], "{}").status, 200, "{sent}");
    }
    let arrived: Vec<_> = upstream.requests().iter().map(|asked| asked.target().to_owned()).collect();
    assert_eq!(arrived, spellings.map(|(_, meant)| meant.to_owned()));
}

#[test]
fn rejects_a_path_without_a_canonical_form() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key, "unrestricted");
    let targets = [
        "//v2/me",
        "/v2//me",
        "/v2/me//",
        "/v2/./me",
        "/v2/../v2/me",
        "/v2/bookings/..",
        "/v2/bookings/%2e%2E",
        "/v2/bookings/.%2e/cancel",
        "/v2/bookings/a%2Fb",
        "/v2/bookings/a%5cb",
        "/v2/bookings/a%252Fb",
        "/v2/bookings/a%3fb",
        "/v2/bookings/a%23b",
        "/v2/bookings/a%3bb",
        "/v2/bookings/a;b",
        "/v2/bookings/a%00",
        "/v2/bookings/a%0d%0aX-Evil:1",
        "/v2/bookings/a%7f",
        "/v2/bookings/a%ff",
        "/v2/bookings/a%c0%af",
        "/v2/bookings/a%",
        "/v2/bookings/a%4",
        "/v2/bookings/a%zz",
        "/v2/bookings/a\"b",
        "/v2/bookings/a|b",
        "/v2/bookings/a\\b",
        "/v2/bookings/reccuring",
        "/v2/me#fragment",
        "/v2/me?x#fragment",
        "*",
        "v2/me",
        "http://api.cal.com/v2/me",
        "https://gateway/v2/me",
    ];
    for target in targets {
        let answer = gateway.ask(&format!("GET {target}"), &[&bearer(&key)]);
        assert_eq!((answer.status, answer.code()), (400, Some("GATEWAY_BAD_REQUEST")), "{target}");
        assert_eq!(answer.json()["error"]["code"], "GATEWAY_BAD_REQUEST", "{target}");
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn rejects_aliases_that_upstream_rewrites() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key, "unrestricted");
    for target in ["/api/v2/me", "/v2/ee/me", "/v2/EE/me", "/v2", "/", "/v2/me/x", "/v2/organisations"] {
        let answer = gateway.ask(&format!("GET {target}"), &[&bearer(&key)]);
        assert_eq!((answer.status, answer.code()), (404, Some("GATEWAY_UNKNOWN_ENDPOINT")), "{target}");
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn accepts_the_methods_of_the_catalog() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key, "unrestricted");
    let wrong = gateway.ask("DELETE /v2/me", &[&bearer(&key)]);
    assert_eq!((wrong.status, wrong.code()), (405, Some("GATEWAY_METHOD_NOT_ALLOWED")));
    assert_eq!(wrong.header("allow"), Some("GET, HEAD, OPTIONS, PATCH"));
    let options = gateway.ask("OPTIONS /v2/me", &[]);
    assert_eq!((options.status, options.header("allow")), (204, Some("GET, HEAD, OPTIONS, PATCH")));
    assert_eq!(options.headers("access-control-allow-origin"), Vec::<&str>::new());
    for method in ["CONNECT", "TRACE", "PURGE", "get"] {
        let answer = gateway.ask(&format!("{method} /v2/me"), &[&bearer(&key)]);
        assert!(matches!(answer.status, 400 | 405), "{method}: {}", answer.head);
    }
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(gateway.ask("HEAD /v2/me", &[&bearer(&key)]).status, 200);
    assert_eq!(upstream.only_request().request_line, "HEAD /v2/me HTTP/1.1");
}

/// A server may ignore any `Upgrade` (RFC 9110 §7.8). Apache `HttpClient` 5.4 sends the first of these with each request.
#[test]
fn ignores_an_upgrade_and_serves_the_request() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = gateway(&upstream, &key, "teams");
    let offers: [&[&str]; 7] = [
        &["Connection: Upgrade", "Upgrade: TLS/1.2"],
        &["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk"],
        &[
            "Connection: upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        ],
        &["Upgrade: websocket, h2c", "Upgrade: TLS/1.3"],
        &["Connection: Upgrade"],
        &["Connection: keep-alive, Upgrade, HTTP2-Settings", "Upgrade: h2c"],
        &["Connection: close, Upgrade", "Upgrade: TLS/1.2"],
    ];
    let own = bearer(&key);
    let mut client = gateway.connect();
    for offer in offers {
        let fields = [&[own.as_str()][..], offer].concat();
        assert_eq!(client.ask("GET /v2/me", &fields).status, 200, "{offer:?}");
    }
    assert!(client.is_closed(), "the last offer came with the end of the connection");
    let post = gateway.connect().ask_with("POST /v2/bookings", &[&own, offers[0][0], offers[0][1]], "{}");
    assert_eq!(post.status, 200);
    let asked = upstream.requests();
    assert_eq!((asked.len(), asked[7].body.as_slice()), (8, &b"{}"[..]));
    for name in ["upgrade", "http2-settings", "sec-websocket-key", "sec-websocket-version"] {
        assert!(asked.iter().all(|asked| asked.headers(name).is_empty()), "{name}");
    }
}

#[test]
fn forwards_unknown_paths_only_within_the_plan() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let forward = "[catalog]\nunknown_endpoints = \"forward\"";
    let gateway = Setup::to(&upstream.base_url()).with(forward).billing("teams", &key).start();
    let teams = [("/v2/brand-new", 200), ("/v2/teams/1/brand-new", 200), ("/v2/Organizations/1/brand-new", 403)];
    let others =
        [("/v2/oauth/x/y/z", 403), ("/v2/oauth-clients/x/y/z", 403), ("/v2/ee/brand-new", 404), ("/api/v2/x", 404)];
    for (target, status) in teams.into_iter().chain(others) {
        assert_eq!(gateway.ask(&format!("GET {target}"), &[&bearer(&key)]).status, status, "{target}");
    }
    let arrived: Vec<_> = upstream.requests().iter().map(|asked| asked.target().to_owned()).collect();
    assert_eq!(arrived, ["/v2/brand-new", "/v2/teams/1/brand-new"]);
}
