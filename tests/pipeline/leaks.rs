//! Tests that no gateway key and no configured secret leaves in a request target or header.

use crate::harness::{Key, Setup, UPSTREAM_KEY, Upstream};

#[test]
fn rejects_a_key_in_the_target_and_names_the_headers_to_use() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    let own = format!("X-Api-Key: {}", key.text);
    let text = &key.text;
    let encoded = text.bytes().fold(String::new(), |encoded, byte| format!("{encoded}%{byte:02x}"));
    let targets = [
        format!("/v2/slots?apiKey={text}"),
        format!("/v2/slots?eventTypeId=1&token=cal_live_{text}"),
        format!("/v2/slots?apiKey={encoded}"),
        format!("/v2/slots?apiKey={}", encoded.replace('%', "%25")),
        format!("/v2/bookings/{text}"),
        format!("/v2/nothing/{text}"),
        format!("/v2/slots?apiKey={UPSTREAM_KEY}"),
        format!("/v2/bookings/{}", UPSTREAM_KEY.replace('_', "%5F")),
    ];
    for target in &targets {
        for lines in [&[][..], &[&*own]] {
            let answer = gateway.ask(&format!("GET {target}"), lines);
            assert_eq!((answer.status, answer.code()), (400, Some("GATEWAY_BAD_REQUEST")), "{target}");
            let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
            let is_key = !target.contains("cal_test") && !target.contains("cal%5Ftest");
            assert_eq!(message.contains("Authorization: Bearer") && message.contains("X-Api-Key"), is_key, "{message}");
            assert!(!answer.text().contains(&text[8..]) && !answer.text().contains(UPSTREAM_KEY));
        }
    }
    assert_eq!(upstream.requests().len(), 0);
    let log = format!("{:?}{:?}", gateway.access_log(2 * targets.len()), gateway.log());
    assert!(!log.contains(&text[8..]) && !log.contains(UPSTREAM_KEY));
    assert!(log.contains("a gateway key in its path or query") && log.contains("a configured Cal.com secret"));
    let ordinary =
        "GET /v2/slots?start=2026-08-13T00%3A00%3A00Z&username=calgate_demo&uid=0b8a3f526d1e4c5b9b7a1f2e3d4c5b6a";
    assert_eq!(gateway.ask(ordinary, &[&own]).status, 200);
}

#[test]
fn rejects_a_key_in_a_forwarded_header() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let forwarded = "forward_headers = [\"x-tenant\", \"referer\"]";
    let gateway = Setup::to(&upstream.base_url()).with(forwarded).billing("teams", &key).start();
    let own = format!("Authorization: Bearer {}", key.text);
    for name in ["User-Agent", "Idempotency-Key", "X-Tenant", "Referer", "Accept-Language"] {
        let line = format!("{name}: http://localhost/?key={}", key.text);
        let answer = gateway.ask("GET /v2/me", &[&own, &line]);
        assert_eq!((answer.status, answer.code()), (400, Some("GATEWAY_BAD_REQUEST")), "{name}");
    }
    for name in ["Cookie", "X-Api-Key", "x-cal-secret-key", "X-Request-Id", "X-Forwarded-For", "X-Calgate-Other"] {
        let answer = gateway.ask("GET /v2/me", &[&own, &format!("{name}: {}", key.text)]);
        assert_eq!(answer.status, 200, "{name} is not forwarded");
        assert!(!answer.head.contains(&key.text), "{name} is not repeated");
    }
    assert_eq!(upstream.requests().len(), 6);
    assert!(
        !format!("{:?}", upstream.requests().iter().map(|asked| &asked.headers).collect::<Vec<_>>())
            .contains(&key.text)
    );
    assert!(!format!("{:?}", gateway.access_log(11)).contains(&key.text));
}
