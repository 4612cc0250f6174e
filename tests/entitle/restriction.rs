//! A consumer's own narrowing, and the mode that only watches.

use crate::given::{caller, code, find, snapshot};

const REFUSED: &str = "GATEWAY_NOT_ENTITLED";

/// A consumer of the plan `teams` with `lines` of its own.
fn decide(lines: &str, requests: &[(&str, &str)]) {
    let snapshot = snapshot(&format!("[consumers.it]\nkeys = [\"{{key:it}}\"]\ncredential = \"teams\"\n{lines}"));
    for (request, expected) in requests {
        let decided = snapshot.entitlements.grant(caller(&snapshot, "it"), find(request).unwrap());
        assert_eq!(code(decided), *expected, "{request} with {lines}");
    }
}

#[test]
fn tags_narrow_by_whole_components() {
    let requests = [
        ("GET /v2/bookings", "ok"),
        ("POST /v2/bookings/x/guests", "ok"),
        ("GET /v2/slots", REFUSED),
        ("GET /v2/me", REFUSED),
    ];
    decide("tags = [\"Bookings\"]", &requests);
    decide("tags = [\"(unprefixed)\"]", &[("GET /v2/me", "ok"), ("GET /v2/teams", REFUSED)]);
}

#[test]
fn methods_narrow_and_head_goes_with_get() {
    let requests =
        [("GET /v2/me", "ok"), ("HEAD /v2/me", "ok"), ("PATCH /v2/me", REFUSED), ("POST /v2/schedules", REFUSED)];
    decide("methods = [\"GET\"]", &requests);
    decide("methods = [\"PATCH\"]", &[("HEAD /v2/me", REFUSED), ("PATCH /v2/me", "ok")]);
}

#[test]
fn endpoints_narrow_and_all_that_fit_have_to_be_listed() {
    let both = "endpoints = [\"GET /v2/schedules/default\", \"GET /v2/schedules/{scheduleId}\"]";
    decide(both, &[("GET /v2/schedules/default", "ok"), ("GET /v2/schedules/7", "ok"), ("GET /v2/me", REFUSED)]);
    let one = "endpoints = [\"GET /v2/schedules/default\"]";
    decide(one, &[("GET /v2/schedules/default", REFUSED), ("GET /v2/schedules/7", REFUSED)]);
}

#[test]
fn each_list_that_is_there_has_to_hold_and_the_plan_as_well() {
    let lists = "tags = [\"Bookings\"]\nmethods = [\"GET\"]";
    decide(lists, &[("GET /v2/bookings", "ok"), ("POST /v2/bookings", REFUSED), ("GET /v2/slots", REFUSED)]);
    decide("tags = [\"Orgs\"]", &[("GET /v2/organizations/1/teams", REFUSED)]);
    decide("tags = []", &[("GET /v2/me", REFUSED)]);
    decide("", &[("GET /v2/me", "ok")]);
}

#[test]
fn a_refusal_names_the_list() {
    for (lines, expected) in [
        ("tags = [\"Slots\"]", "the consumer's own tags leave out \"GET /v2/me\" (tag \"Me\")"),
        ("methods = [\"POST\"]", "the consumer's own methods leave out \"GET /v2/me\" (tag \"Me\")"),
        ("endpoints = [\"GET /v2/slots\"]", "the consumer's own endpoints leave out \"GET /v2/me\" (tag \"Me\")"),
    ] {
        let snapshot = snapshot(&format!("[consumers.it]\nkeys = [\"{{key:it}}\"]\ncredential = \"teams\"\n{lines}"));
        let refusal = snapshot.entitlements.grant(caller(&snapshot, "it"), find("GET /v2/me").unwrap()).unwrap_err();
        assert_eq!(refusal.detail().unwrap(), expected);
    }
}

#[test]
fn observe_lets_through_and_says_what_would_have_refused() {
    let snapshot = snapshot(
        "[entitlements]\nmode = \"observe\"\n[consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"teams\"\n\
                   methods = [\"GET\"]",
    );
    let observed = |request| {
        let grant = snapshot.entitlements.grant(caller(&snapshot, "it"), find(request).unwrap()).unwrap();
        grant.would_deny().map(ToString::to_string)
    };
    assert_eq!(observed("GET /v2/me"), None);
    assert!(observed("GET /v2/organizations/1/teams").unwrap().contains("denies \"Orgs\""));
    assert!(observed("POST /v2/schedules").unwrap().contains("own methods"));
    let credentials = snapshot.entitlements.grant(caller(&snapshot, "it"), find("POST /v2/api-keys/refresh").unwrap());
    assert_eq!(code(credentials), "GATEWAY_CREDENTIAL_OPERATION");
    let nobody = snapshot.consumers.identify(&http::HeaderMap::new(), crate::given::PEER, crate::given::now()).unwrap();
    assert_eq!(code(snapshot.entitlements.grant(nobody, find("GET /v2/me").unwrap())), "GATEWAY_UNAUTHENTICATED");
}

#[test]
fn consumers_that_share_an_entitlement_do_so_only_with_their_like() {
    let consumers = [("a", "GET"), ("b", "PATCH"), ("c", "GET"), ("d", ""), ("e", "PATCH")];
    let text = consumers.map(|(name, method)| {
        let narrowing = if method.is_empty() { String::new() } else { format!("methods = [\"{method}\"]\n") };
        format!("[consumers.{name}]\nkeys = [\"{{key:{name}}}\"]\ncredential = \"teams\"\n{narrowing}")
    });
    let snapshot = snapshot(&text.concat());
    for (name, only) in consumers {
        for request in ["GET /v2/me", "PATCH /v2/me"] {
            let expected = if request.starts_with(only) { "ok" } else { REFUSED };
            let decided = snapshot.entitlements.grant(caller(&snapshot, name), find(request).unwrap());
            assert_eq!(code(decided), expected, "{name}: {request}");
        }
    }
}
