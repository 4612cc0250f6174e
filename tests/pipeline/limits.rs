//! Tests of consumer rate limits: tiers are exact, refusals cost nothing, and every response reports the bucket.

use std::sync::Barrier;

use crate::harness::{Key, Setup, Upstream};

/// A tier so slow that no token returns during a test.
const SLOW: &str = "[tiers.slow]\nrequests_per_minute = 1\nburst = 100";

fn bearer(key: &Key) -> String {
    format!("Authorization: Bearer {}", key.text)
}

#[test]
fn grants_64_connections_exactly_the_tokens_of_the_bucket() {
    let (upstream, key, second) = (Upstream::start(), Key::new(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).with(SLOW).billing("teams", &key).start();
    let keys = format!("keys = [\"{}\", \"{}\"]\ntier = \"slow\"", key.hash, second.hash);
    gateway.reload(|text| text.replace(&format!("keys = [\"{}\"]", key.hash), &keys).replace("\ntier = \"roomy\"", ""));
    let start = Barrier::new(64);
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let caller = |n: usize| {
            let own = bearer(if n.is_multiple_of(2) { &key } else { &second });
            let (mut connection, start) = (gateway.connect(), &start);
            scope.spawn(move || {
                start.wait();
                (0..4).map(|_| connection.ask("GET /v2/me", &[&own]).status).collect::<Vec<_>>()
            })
        };
        let callers: Vec<_> = (0..64).map(caller).collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    let count = |status| answers.iter().filter(|s| **s == status).count();
    assert_eq!((count(200), count(429)), (100, 156));
    assert_eq!(upstream.requests().len(), 100);
}

#[test]
fn a_request_that_cannot_be_sent_costs_nothing() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).with(SLOW).billing("unrestricted", &key).start();
    gateway.reload(|text| text.replace("tier = \"roomy\"", "tier = \"slow\""));
    for (request, field, code) in [
        ("GET /v2/oauth-clients/x/webhooks", "Accept: */*", "GATEWAY_CREDENTIAL_UNSUITABLE"),
        ("GET /v2/me", "X-Calgate-Managed-User: 7", "GATEWAY_BAD_REQUEST"),
        ("GET /v2/me", "X-Calgate-Max-Wait: soon", "GATEWAY_BAD_REQUEST"),
    ] {
        let answer = gateway.ask(request, &[&bearer(&key), field]);
        let left = answer.header("x-ratelimit-remaining-default");
        assert_eq!((answer.code(), left), (Some(code), Some("100")), "{request} {field}");
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn an_early_refusal_costs_nothing_and_every_response_reports_the_bucket() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url())
        .with("[tiers.slow]\nrequests_per_minute = 60\nburst = 2")
        .billing("teams", &key)
        .start();
    gateway.reload(|text| text.replace("tier = \"roomy\"", "tier = \"slow\""));
    let ask = |request: &str| gateway.ask(request, &[&bearer(&key)]);
    for (request, status) in [
        ("GET /v2/nothing", 404),
        ("PUT /v2/me", 405),
        ("GET /v2/organizations/1/teams", 403),
        ("POST /v2/api-keys/refresh", 403),
    ] {
        let answer = ask(request);
        assert_eq!((answer.status, answer.header("x-ratelimit-remaining-default")), (status, Some("2")), "{request}");
    }
    let answer = ask("GET /v2/me");
    assert_eq!(answer.status, 200);
    for (name, value) in [
        ("x-ratelimit-limit-default", "2"),
        ("x-ratelimit-remaining-default", "1"),
        ("x-ratelimit-reset-default", "1"),
        ("ratelimit-policy", "\"default\";q=2;w=2"),
        ("ratelimit", "\"default\";r=1;t=1"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    let refused = (0..9).map(|_| ask("GET /v2/me")).find(|answer| answer.status == 429).expect("a 429");
    assert_eq!(refused.code(), Some("GATEWAY_RATE_LIMITED"));
    assert_eq!(
        (refused.header("retry-after"), refused.header("x-ratelimit-remaining-default")),
        (Some("1"), Some("0"))
    );
    assert_eq!(refused.json()["error"]["code"], "GATEWAY_RATE_LIMITED");
}
