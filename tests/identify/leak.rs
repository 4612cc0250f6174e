//! Detection of secrets in targets and forwarded headers.

use calgate::identify::LeakGuard;
use calgate::refusal::{Leak, Refusal};
use http::{HeaderMap, HeaderName};
use proptest::prelude::*;

use crate::given::{headers, key};

const API_KEY: &str = "cal_live_0123456789abcdef0123456789abcdef";
const CLIENT_SECRET: &str = "eyJhbGciOiJIUzI1NiJ9.eyJuYW1lIjoiYSJ9.c2lnbmF0dXJl";
const BASE64: &str = "q3+6Zr2Vb1cD4eF5gH7iJ8kL9m/x==";

fn guard() -> LeakGuard {
    let mut guard = LeakGuard::new();
    for secret in [API_KEY, CLIENT_SECRET, BASE64, "short-secret"] {
        guard.add(secret.as_bytes());
    }
    guard
}

fn found(target: &str) -> Option<Leak> {
    match guard().check(target, &HeaderMap::new(), &[]) {
        Ok(()) => None,
        Err(Refusal::Leak(leak)) => Some(leak),
        Err(other) => panic!("{other:?}"),
    }
}

/// Percent-encodes every byte.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |encoded, byte| format!("{encoded}%{byte:02X}"))
}

#[test]
fn finds_a_gateway_key_anywhere_in_a_target() {
    let key = key("it");
    let (one, all) = (key.replacen('_', "%5f", 1), encoded(&key));
    for target in [
        format!("/v2/slots?apiKey={key}"),
        format!("/v2/slots?a=1&x={key}&b=2"),
        format!("/v2/slots?{key}"),
        format!("/v2/slots?{key}=1"),
        format!("/v2/slots?apiKey=cal_live_{key}"),
        format!("/v2/slots?apiKey=Bearer%20{key}"),
        format!("/v2/slots?apiKey=Bearer+{key}"),
        format!("/v2/bookings/{key}"),
        format!("/v2/bookings/{key}/cancel"),
        format!("/v2/slots?apiKey={one}"),
        format!("/v2/slots?apiKey={all}"),
        format!("/v2/slots?apiKey={}", all.replace('%', "%25")),
        format!("/v2/slots?apiKey={}", all.replace('%', "%2525")),
        format!("/v2/slots?apiKey={}", &key[..key.len() - 10]),
        format!("/v2/slots?broken=%zz&apiKey={all}"),
        format!("/v2/slots?broken=%&apiKey={one}%"),
    ] {
        assert_eq!(found(&target), Some(Leak::KeyInTarget), "{target}");
    }
}

#[test]
fn finds_a_configured_secret_in_a_target() {
    for secret in [API_KEY, CLIENT_SECRET, &encoded(BASE64)] {
        for target in [
            format!("/v2/slots?apiKey={secret}"),
            format!("/v2/slots?a=b&k=Bearer%20{secret}"),
            format!("/v2/bookings/{secret}/cancel"),
            format!("/v2/slots?apiKey={}", encoded(secret)),
        ] {
            assert_eq!(found(&target), Some(Leak::SecretInTarget), "{target}");
        }
    }
}

#[test]
fn accepts_ordinary_targets() {
    for target in [
        "",
        "/",
        "/v2/slots?start=2026-08-13T00%3A00%3A00.000Z&end=2026-08-14T00:00:00.000Z&timeZone=Europe%2FBerlin",
        "/v2/bookings/0b8a3f52-6d1e-4c5b-9b7a-1f2e3d4c5b6a",
        "/v2/bookings?attendeeEmail=calgate_demo@example.com&eventTypeSlug=calgate_",
        "/v2/slots?username=calgate_a_name_with_many_words_in_it",
        "/v2/slots?x=short-secret",
        "/v2/slots?x=%",
        "/v2/slots?apiKey=cal_live_fedcba9876543210fedcba9876543210",
    ] {
        assert_eq!(found(target), None, "{target}");
    }
}

#[test]
fn finds_a_gateway_key_in_forwarded_headers() {
    let key = key("it");
    let extra: [HeaderName; 1] = ["x-tenant".parse().unwrap()];
    let check = |name: &str, value: &str| guard().check("/v2/me", &headers([(name, value)]), &extra).is_err();
    for name in ["user-agent", "idempotency-key", "traceparent", "cal-api-version", "x-tenant"] {
        assert!(check(name, &key) && check(name, &format!("it is {key}, you see")), "{name}");
        assert!(!check(name, "calgate_client/1.0 (a text that is long enough for a key)"), "{name}");
    }
    for name in ["authorization", "x-api-key", "x-cal-secret-key", "cookie", "referer", "x-calgate-max-wait"] {
        assert!(!check(name, &key), "{name} is not forwarded");
    }
}

proptest! {
    #[test]
    fn never_panics_and_always_finds_a_key(before in "[ -~]{0,40}", after in "[ -~]{0,40}") {
        let _ = found(&format!("/{before}{after}"));
        let key = key("it");
        prop_assert_eq!(found(&format!("/{before}/{key}/{after}")), Some(Leak::KeyInTarget));
    }
}
