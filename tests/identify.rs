//! Identification of callers: gateway keys, client addresses, passthrough credentials, and callers without any of them.

mod client_address;
mod host;
mod key;
mod leak;
mod passthrough;

use std::time::{Duration, SystemTime};

use calgate::gateway::Snapshot;
use calgate::identify::{AddressKey, Identity};
use calgate::refusal::Refusal;
use calgate::respond;
use http::HeaderMap;

use crate::given::{PEER, code, config, find, hash, headers, key, now, snapshot};

/// Returns the name of the caller, or the code of the refusal.
fn identified(snapshot: &Snapshot, fields: &HeaderMap) -> String {
    snapshot
        .consumers
        .identify(fields, PEER, now())
        .map_or_else(|refusal| refusal.code().to_owned(), |caller| caller.name().to_owned())
}

const NOBODY: &str = "GATEWAY_UNAUTHENTICATED";
const BAD: &str = "GATEWAY_BAD_REQUEST";

#[test]
fn reads_a_key_from_every_header_that_clients_can_set() {
    let snapshot = snapshot(
        "[consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"teams\"\n\
                   [consumers.other]\nkeys = [\"{key:other}\"]\ncredential = \"teams\"",
    );
    let (it, other) = (key("it"), key("other"));
    let bearer = format!("Bearer {it}");
    let (live, test) = (format!("cal_live_{it}"), format!("cal_{it}"));
    let id = ("x-cal-client-id", "any-client-id");
    let table = [
        (headers([("authorization", &bearer)]), "it"),
        (headers([("authorization", &format!("bEARER   {it} "))]), "it"),
        (headers([("authorization", &it)]), "it"),
        (headers([("authorization", &live)]), "it"),
        (headers([("authorization", &format!("Bearer {live}"))]), "it"),
        (headers([("authorization", &format!("Bearer {test}"))]), "it"),
        (headers([("x-api-key", &it)]), "it"),
        (headers([("x-api-key", &test)]), "it"),
        (headers([("x-api-key", &bearer)]), "it"),
        (headers([("x-cal-secret-key", &it)]), "it"),
        (headers([("x-cal-secret-key", &live), id]), "it"),
        (headers([("x-cal-secret-key", &it), id, id]), "it"),
        (headers([("x-cal-secret-key", &it), ("x-cal-client-id", &it)]), "it"),
        (headers([("x-api-key", &it), ("authorization", &bearer)]), "it"),
        (headers([("x-api-key", &live), ("authorization", &bearer), ("x-cal-secret-key", &test)]), "it"),
        (headers([("x-api-key", &it), ("authorization", "Bearer cal_live_of_the_app")]), "it"),
        (headers([("x-api-key", "cal_live_of_the_app"), ("authorization", &bearer)]), "it"),
        (headers([("x-cal-secret-key", &it), ("authorization", "Bearer eyJh.eyJz.c2ln")]), "it"),
        (headers([("authorization", &bearer), ("x-cal-secret-key", "secret-of-the-app"), id]), "it"),
        (headers([("x-api-key", &other), ("authorization", &bearer)]), BAD),
        (headers([("x-cal-secret-key", &other), ("authorization", &bearer)]), BAD),
        (headers([("x-cal-secret-key", &other), ("x-api-key", &it)]), BAD),
        (headers([("x-api-key", &it), ("x-api-key", &it)]), BAD),
        (headers([("authorization", &bearer), ("authorization", &bearer)]), BAD),
        (headers([("x-cal-secret-key", &it), ("x-cal-secret-key", &it)]), BAD),
        (headers([("authorization", &format!("Basic {it}"))]), NOBODY),
        (headers([("authorization", &format!("Bearer {it},{it}"))]), NOBODY),
        (headers([("authorization", &format!("Bearer cal_live_cal_{it}"))]), NOBODY),
        (headers([("x-api-key", &it.to_uppercase())]), NOBODY),
        (headers([("x-cal-client-id", &it)]), NOBODY),
        (headers([("authorization", "")]), "(public)"),
        (headers([("authorization", "Bearer ")]), "(public)"),
        (headers([("authorization", "é")]), "(public)"),
        (headers([("x-api-key", "")]), "(public)"),
        (headers([("x_api_key", &it)]), "(public)"),
        (headers([("cookie", &it), ("x-calgate-key", &it)]), "(public)"),
    ];
    for (fields, expected) in table {
        assert_eq!(identified(&snapshot, &fields), expected, "{fields:?}");
    }
}

#[test]
fn several_keys_identify_one_consumer_until_each_expires() {
    let snapshot = snapshot(
        "[consumers.it]\ncredential = \"teams\"\nkeys = [\"{key:new}\", \
                   { hash = \"{key:old}\", expires = 2026-01-01T01:00:00+01:00 }, \
                   { hash = \"{key:later}\", expires = 2026-01-01T00:00:01Z }]",
    );
    let at = |name: &str, moment: SystemTime| {
        let caller = snapshot.consumers.identify(&headers([("x-api-key", &*key(name))]), PEER, moment);
        caller.map(|caller| caller.name().to_owned()).unwrap_or_default()
    };
    let before = now() - Duration::from_nanos(1);
    assert_eq!([at("new", before), at("old", before), at("later", before)], ["it", "it", "it"]);
    assert_eq!([at("new", now()), at("old", now()), at("later", now())], ["it", "", "it"]);
    let much_later = now() + Duration::from_hours(24 * 365);
    assert_eq!([at("new", much_later), at("old", much_later), at("later", much_later)], ["it", "", ""]);
}

/// Returns the detail of the refusal for the access log.
fn detail(snapshot: &Snapshot, fields: &HeaderMap) -> String {
    let caller = snapshot.consumers.identify(fields, PEER, now());
    let grant = caller.and_then(|caller| snapshot.entitlements.grant(caller, find("GET /v2/me").unwrap()));
    grant.unwrap_err().detail().unwrap()
}

#[test]
fn all_invalid_keys_get_the_same_response_and_different_log_details() {
    let before = snapshot("[consumers.it]\nkeys = [\"{key:revoked}\"]\ncredential = \"teams\"");
    assert_eq!(identified(&before, &headers([("x-api-key", &*key("revoked"))])), "it");
    let text = "[consumers.it]\nkeys = [\"{key:good}\", { hash = \"{key:expired}\", expires = 2025-01-01T00:00:00Z }]\n\
                credential = \"teams\"";
    let snapshot = Snapshot::build(config(text), Some(&before)).unwrap();
    let snapshot = Snapshot::build(config(text), Some(&snapshot)).unwrap();
    let mut mistyped = key("good");
    mistyped.replace_range(10..11, if &mistyped[10..11] == "0" { "1" } else { "0" });
    let start = |name: &str| format!("{}…", &hash(&key(name))[..19]);
    let table = [
        (key("unknown"), format!("unknown gateway key {}: no consumer lists it", start("unknown"))),
        (key("expired"), format!("expired gateway key {} of the consumer \"it\"", start("expired"))),
        (
            key("revoked"),
            format!("revoked gateway key {}: a reload removed it from the consumer \"it\"", start("revoked")),
        ),
        (mistyped, "mistyped gateway key: its checksum does not match".to_owned()),
        ("calgate_".to_owned(), "mistyped gateway key: wrong length or characters".to_owned()),
        (format!("my {}", key("good")), "a gateway key in a place where it is not read".to_owned()),
        ("garbage".to_owned(), "a credential that is not a gateway key, and passthrough.enabled is false".to_owned()),
        (String::new(), "no gateway key in Authorization, X-Api-Key or x-cal-secret-key".to_owned()),
    ];
    let mut answers = Vec::new();
    for (text, expected) in table {
        let fields = headers([("x-api-key", &*text)]);
        assert_eq!(detail(&snapshot, &fields), expected);
        assert!(text.is_empty() || !expected.contains(&text), "the log must not contain the key");
        let caller = snapshot.consumers.identify(&fields, PEER, now());
        let refusal =
            caller.and_then(|caller| snapshot.entitlements.grant(caller, find("GET /v2/me").unwrap())).unwrap_err();
        assert!(matches!(refusal, Refusal::Unauthenticated(_)));
        let (head, body) = respond::refusal_response(&refusal, "", now()).into_parts();
        answers.push((head.status, head.headers, body));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[test]
fn a_revoked_key_is_valid_after_it_is_added_again() {
    let text = "[consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"teams\"";
    let gone = Snapshot::build(config("[consumers.it]\ncredential = \"teams\""), Some(&snapshot(text))).unwrap();
    let fields = headers([("x-api-key", &*key("it"))]);
    assert!(detail(&gone, &fields).starts_with("revoked"));
    let back = Snapshot::build(config(text), Some(&gone)).unwrap();
    assert_eq!(identified(&back, &fields), "it");
}

#[test]
fn a_caller_without_a_key_is_the_anonymous_consumer_or_public() {
    let sidecar =
        snapshot("[consumers.app]\nkeys = [\"{key:app}\"]\ncredential = \"teams\"\n[anonymous]\nconsumer = \"app\"");
    assert_eq!(identified(&sidecar, &HeaderMap::new()), "app");
    for placeholder in [
        headers([("authorization", "Bearer cal_live_0123456789")]),
        headers([("authorization", "cal_placeholder")]),
        headers([("authorization", "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3In0.c2lnbmF0dXJl")]),
        headers([("authorization", "Basic dXNlcjpwYXNz")]),
        headers([("authorization", "")]),
        headers([("x-api-key", "not-needed")]),
        headers([("x-cal-secret-key", "not-needed"), ("x-cal-client-id", "not-needed")]),
        headers([("x-cal-client-id", "not-needed"), ("x-cal-client-id", "not-needed")]),
        headers([("authorization", "Bearer x"), ("x-cal-secret-key", "y"), ("x-api-key", "z")]),
    ] {
        assert_eq!(identified(&sidecar, &placeholder), "app", "{placeholder:?}");
    }
    for wrong in
        [key("unknown"), "calgate_mistyped".to_owned(), key("app").to_uppercase(), format!("\"{}\"", key("app"))]
    {
        for name in ["authorization", "x-api-key", "x-cal-secret-key", "x-cal-client-id"] {
            let fields = headers([(name, &wrong)]);
            assert_eq!(identified(&sidecar, &fields), NOBODY, "{name}: an invalid key is not a placeholder");
        }
    }
    let shared = snapshot("");
    let caller = shared.consumers.identify(&HeaderMap::new(), PEER, now()).unwrap();
    assert!(matches!(caller.identity(), Identity::Public(address) if *address == AddressKey::of(PEER)));
    assert_eq!(
        identified(&shared, &headers([("x-cal-client-id", "client-id")])),
        "(public)",
        "an id identifies nobody"
    );
}

#[test]
fn a_refusal_contains_neither_consumer_nor_key() {
    let snapshot = snapshot("[consumers.secret-name]\nkeys = [\"{key:it}\"]\ncredential = \"teams\"");
    let refused = snapshot.consumers.identify(&headers([("x-api-key", "calgate_nonsense")]), PEER, now());
    let shown = format!("{refused:?}");
    assert!(!shown.contains("secret-name") && !shown.contains("nonsense"), "{shown}");
    assert_eq!(code(refused), NOBODY);
}
