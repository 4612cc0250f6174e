//! Who asks: keys, addresses, callers with a Cal.com credential of their own, and callers without anything.

mod address;
mod key;
mod own;

use std::time::{Duration, SystemTime};

use calgate::app::App;
use calgate::identify::{AddressKey, Who};
use calgate::refusal::Refusal;
use calgate::respond;
use http::HeaderMap;

use crate::given::{PEER, app, code, headers, key, now};

/// Who the fields are from: a consumer's name, `(public)`, `(passthrough)`, or the code of a refusal.
fn who(app: &App, fields: &HeaderMap) -> String {
    app.consumers
        .identify(fields, PEER, now())
        .map_or_else(|no| no.code().to_owned(), |caller| caller.name().to_owned())
}

const NOBODY: &str = "GATEWAY_UNAUTHENTICATED";
const BAD: &str = "GATEWAY_BAD_REQUEST";

#[test]
fn a_key_comes_as_a_bearer_or_as_x_api_key() {
    let app = app("[consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"teams\"\n\
                   [consumers.other]\nkeys = [\"{key:other}\"]\ncredential = \"teams\"");
    let (it, other) = (key("it"), key("other"));
    let bearer = format!("Bearer {it}");
    let table = [
        (headers([("authorization", &bearer)]), "it"),
        (headers([("authorization", &format!("bEARER   {it} "))]), "it"),
        (headers([("x-api-key", &it)]), "it"),
        (headers([("x-api-key", &it), ("authorization", &bearer)]), "it"),
        (headers([("x-api-key", &it), ("authorization", "Bearer cal_live_of_the_app")]), "it"),
        (headers([("x-api-key", "cal_live_of_the_app"), ("authorization", &bearer)]), "it"),
        (headers([("x-api-key", &other), ("authorization", &bearer)]), BAD),
        (headers([("x-api-key", &it), ("x-api-key", &it)]), BAD),
        (headers([("authorization", &bearer), ("authorization", &bearer)]), BAD),
        (headers([("authorization", &it)]), NOBODY),
        (headers([("authorization", &format!("Basic {it}"))]), NOBODY),
        (headers([("authorization", &format!("Bearer {it},{it}"))]), NOBODY),
        (headers([("authorization", "")]), NOBODY),
        (headers([("authorization", "é")]), NOBODY),
        (headers([("x-api-key", "")]), NOBODY),
        (headers([("x-api-key", &it.to_uppercase())]), NOBODY),
        (headers([("x_api_key", &it)]), "(public)"),
        (headers([("cookie", &it), ("x-calgate-key", &it)]), "(public)"),
    ];
    for (fields, expected) in table {
        assert_eq!(who(&app, &fields), expected, "{fields:?}");
    }
}

#[test]
fn two_live_keys_are_one_consumer_and_each_ends_when_it_expires() {
    let app = app("[consumers.it]\ncredential = \"teams\"\nkeys = [\"{key:new}\", \
                   { hash = \"{key:old}\", expires = 2026-01-01T01:00:00+01:00 }, \
                   { hash = \"{key:later}\", expires = 2026-01-01T00:00:01Z }]");
    let at = |name: &str, moment: SystemTime| {
        let caller = app.consumers.identify(&headers([("x-api-key", &*key(name))]), PEER, moment);
        caller.map(|caller| caller.name().to_owned()).unwrap_or_default()
    };
    let before = now() - Duration::from_nanos(1);
    assert_eq!([at("new", before), at("old", before), at("later", before)], ["it", "it", "it"]);
    assert_eq!([at("new", now()), at("old", now()), at("later", now())], ["it", "", "it"]);
    let much_later = now() + Duration::from_hours(24 * 365);
    assert_eq!([at("new", much_later), at("old", much_later), at("later", much_later)], ["it", "", ""]);
}

#[test]
fn unknown_expired_revoked_and_broken_keys_are_answered_byte_for_byte_alike() {
    let before = app("[consumers.it]\nkeys = [\"{key:revoked}\"]\ncredential = \"teams\"");
    assert_eq!(who(&before, &headers([("x-api-key", &*key("revoked"))])), "it");
    let app =
        app("[consumers.it]\nkeys = [\"{key:good}\", { hash = \"{key:expired}\", expires = 2025-01-01T00:00:00Z }]\n\
                   credential = \"teams\"");
    let mut broken = key("good");
    broken.replace_range(10..11, if &broken[10..11] == "0" { "1" } else { "0" });
    let answer = |text: &str| {
        let refusal = app.consumers.identify(&headers([("x-api-key", text)]), PEER, now()).unwrap_err();
        assert!(matches!(refusal, Refusal::Unauthenticated));
        let (head, body) = respond::refusal(&refusal, "", now()).into_parts();
        (head.status, head.headers, body, refusal.detail())
    };
    let unknown = answer(&key("unknown"));
    for bad in [&*key("expired"), &*key("revoked"), &*broken, "calgate_", "garbage"] {
        assert_eq!(answer(bad), unknown, "{bad}");
    }
}

#[test]
fn callers_without_a_key_are_the_anonymous_consumer_or_the_public() {
    let sidecar = app("[consumers.app]\ncredential = \"teams\"\n[anonymous]\nconsumer = \"app\"");
    assert_eq!(who(&sidecar, &HeaderMap::new()), "app");
    assert_eq!(who(&sidecar, &headers([("x-api-key", &*key("unknown"))])), NOBODY, "a bad key is no missing key");
    assert_eq!(who(&sidecar, &headers([("authorization", "Bearer cal_live_0123456789")])), NOBODY);
    let shared = app("");
    let caller = shared.consumers.identify(&HeaderMap::new(), PEER, now()).unwrap();
    assert!(matches!(caller.who(), Who::Public(address) if *address == AddressKey::of(PEER)));
}

#[test]
fn a_refusal_names_no_consumer_and_no_key() {
    let app = app("[consumers.secret-name]\nkeys = [\"{key:it}\"]\ncredential = \"teams\"");
    let refused = app.consumers.identify(&headers([("x-api-key", "calgate_nonsense")]), PEER, now());
    let shown = format!("{refused:?}");
    assert!(!shown.contains("secret-name") && !shown.contains("nonsense"), "{shown}");
    assert_eq!(code(refused), NOBODY);
}
