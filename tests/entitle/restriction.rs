//! Restrictions of consumers, and observe mode.

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
fn tags_restrict_by_whole_components() {
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
fn methods_restrict_and_get_includes_head() {
    let requests =
        [("GET /v2/me", "ok"), ("HEAD /v2/me", "ok"), ("PATCH /v2/me", REFUSED), ("POST /v2/schedules", REFUSED)];
    decide("methods = [\"GET\"]", &requests);
    decide("methods = [\"PATCH\"]", &[("HEAD /v2/me", REFUSED), ("PATCH /v2/me", "ok")]);
}

#[test]
fn endpoints_must_list_every_match() {
    let both = "endpoints = [\"GET /v2/schedules/default\", \"GET /v2/schedules/{scheduleId}\"]";
    decide(both, &[("GET /v2/schedules/default", "ok"), ("GET /v2/schedules/7", "ok"), ("GET /v2/me", REFUSED)]);
    let one = "endpoints = [\"GET /v2/schedules/default\"]";
    decide(one, &[("GET /v2/schedules/default", REFUSED), ("GET /v2/schedules/7", REFUSED)]);
}

#[test]
fn a_request_must_satisfy_every_list_and_the_plan() {
    let lists = "tags = [\"Bookings\"]\nmethods = [\"GET\"]";
    decide(lists, &[("GET /v2/bookings", "ok"), ("POST /v2/bookings", REFUSED), ("GET /v2/slots", REFUSED)]);
    decide("tags = [\"Orgs\"]", &[("GET /v2/organizations/1/teams", REFUSED)]);
    decide("tags = []", &[("GET /v2/me", REFUSED)]);
    decide("", &[("GET /v2/me", "ok")]);
}

#[test]
fn a_refusal_names_the_list() {
    for (lines, expected) in [
        ("tags = [\"Slots\"]", "the restriction `tags` of the consumer excludes \"GET /v2/me\" (tag \"Me\")"),
        ("methods = [\"POST\"]", "the restriction `methods` of the consumer excludes \"GET /v2/me\" (tag \"Me\")"),
        (
            "endpoints = [\"GET /v2/slots\"]",
            "the restriction `endpoints` of the consumer excludes \"GET /v2/me\" (tag \"Me\")",
        ),
    ] {
        let snapshot = snapshot(&format!("[consumers.it]\nkeys = [\"{{key:it}}\"]\ncredential = \"teams\"\n{lines}"));
        let refusal = snapshot.entitlements.grant(caller(&snapshot, "it"), find("GET /v2/me").unwrap()).unwrap_err();
        assert_eq!(refusal.detail().unwrap(), expected);
    }
}

#[test]
fn observe_forwards_and_names_the_rule() {
    let snapshot = snapshot(
        "[entitlements]\nmode = \"observe\"\n[consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"teams\"\n\
                   methods = [\"GET\"]",
    );
    let would_deny = |request| {
        let grant = snapshot.entitlements.grant(caller(&snapshot, "it"), find(request).unwrap()).unwrap();
        grant.would_deny().map(ToString::to_string)
    };
    assert_eq!(would_deny("GET /v2/me"), None);
    assert!(would_deny("GET /v2/organizations/1/teams").unwrap().contains("denies \"Orgs\""));
    assert!(would_deny("POST /v2/schedules").unwrap().contains("restriction `methods`"));
    let credentials = snapshot.entitlements.grant(caller(&snapshot, "it"), find("POST /v2/api-keys/refresh").unwrap());
    assert_eq!(code(credentials), "GATEWAY_CREDENTIAL_OPERATION");
    let public_caller =
        snapshot.consumers.identify(&http::HeaderMap::new(), crate::given::PEER, crate::given::now()).unwrap();
    assert_eq!(
        code(snapshot.entitlements.grant(public_caller, find("GET /v2/me").unwrap())),
        "GATEWAY_UNAUTHENTICATED"
    );
}

#[test]
fn consumers_share_only_equal_entitlements() {
    let consumers = [("a", "GET"), ("b", "PATCH"), ("c", "GET"), ("d", ""), ("e", "PATCH")];
    let text = consumers.map(|(name, method)| {
        let restriction = if method.is_empty() { String::new() } else { format!("methods = [\"{method}\"]\n") };
        format!("[consumers.{name}]\nkeys = [\"{{key:{name}}}\"]\ncredential = \"teams\"\n{restriction}")
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
