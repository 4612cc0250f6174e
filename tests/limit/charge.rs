//! Charges: which bucket a request is charged to, and what a reload keeps.

use std::net::IpAddr;

use calgate::gateway::Snapshot;
use calgate::ratelimit::RateLimitStatus;
use calgate::refusal::{AuthFailure, Refusal};
use calgate::time::MonoTime;
use http::HeaderMap;

use crate::given::{self, PEER, code, find, headers, now, snapshot};

const SECOND: u64 = 1_000_000_000;

/// Sends `GET /v2/slots`, which is public, with `fields` from `peer`.
fn call(snapshot: &Snapshot, fields: &HeaderMap, peer: IpAddr, at: u64) -> (Option<RateLimitStatus>, &'static str) {
    let caller = snapshot.consumers.identify(fields, peer, now()).unwrap();
    let grant = snapshot.entitlements.grant(caller, find("GET /v2/slots").unwrap()).unwrap();
    let (status, permit) = snapshot.rate_limits.charge(grant, MonoTime(at));
    (status, code(permit))
}

fn remaining(snapshot: &Snapshot, fields: &HeaderMap, peer: IpAddr) -> u32 {
    call(snapshot, fields, peer, SECOND).0.unwrap().remaining
}

#[test]
fn the_shipped_tiers_are_120_200_and_800_a_minute() {
    let consumer = |name: &str, tier: &str| {
        format!("[consumers.{name}]\nkeys = [\"{{key:{name}}}\"]\ncredential = \"teams\"\n{tier}\n")
    };
    let snapshot = snapshot(
        &[
            consumer("plain", ""),
            consumer("elevated", "tier = \"elevated\""),
            consumer("premium", "tier = \"premium\""),
            consumer("own", "tier = \"own\""),
            "[tiers.own]\nrequests_per_minute = 30\nburst = 5\n".to_owned(),
        ]
        .concat(),
    );
    for (name, burst) in [("plain", 120), ("elevated", 200), ("premium", 800), ("own", 5)] {
        let key = given::key(name);
        let taken =
            (0..1000).take_while(|_| call(&snapshot, &headers([("x-api-key", &key)]), PEER, SECOND).1 == "ok").count();
        assert_eq!(taken, burst, "{name}");
        let (status, refused) = call(&snapshot, &headers([("x-api-key", &key)]), PEER, SECOND);
        assert_eq!((status.unwrap().remaining, refused), (0, "GATEWAY_RATE_LIMITED"));
    }
}

#[test]
fn all_keys_of_a_consumer_share_its_bucket_and_no_two_consumers_do() {
    let snapshot = snapshot(
        "[consumers.one]\nkeys = [\"{key:one-a}\", \"{key:one-b}\"]\ncredential = \"teams\"\n\
                   [consumers.two]\nkeys = [\"{key:two}\"]\ncredential = \"teams\"\n[anonymous]\nconsumer = \"two\"",
    );
    let by = |name| headers([("x-api-key", &*given::key(name))]);
    assert_eq!(remaining(&snapshot, &by("one-a"), PEER), 119);
    assert_eq!(remaining(&snapshot, &by("one-b"), PEER), 118);
    assert_eq!(remaining(&snapshot, &by("two"), PEER), 119);
    assert_eq!(remaining(&snapshot, &HeaderMap::new(), PEER), 118, "who has no key is `two` here");
}

#[test]
fn callers_without_a_key_are_charged_by_address() {
    let snapshot = snapshot("[anonymous]\nrequests_per_minute = 10");
    let from = |address: &str| remaining(&snapshot, &HeaderMap::new(), address.parse().unwrap());
    assert_eq!((from("192.0.2.1"), from("192.0.2.1"), from("192.0.2.2")), (9, 8, 9));
    assert_eq!((from("2001:db8::1"), from("2001:db8::ffff:2"), from("2001:db8:0:1::1")), (9, 8, 9));
    assert_eq!(from("::ffff:192.0.2.1"), 7);
}

#[test]
fn passthrough_callers_are_charged_by_credential_with_their_tier() {
    let snapshot = snapshot("[passthrough]\nenabled = true\nplan = \"teams\"\ntier = \"elevated\"");
    let by = |token: &str| headers([("authorization", token)]);
    assert_eq!(remaining(&snapshot, &by("Bearer cal_live_aaaaaaaa"), PEER), 199);
    assert_eq!(remaining(&snapshot, &by("bearer  cal_live_aaaaaaaa"), "192.0.2.9".parse().unwrap()), 198);
    assert_eq!(remaining(&snapshot, &by("Bearer cal_live_bbbbbbbb"), PEER), 199);
}

#[test]
fn a_reload_changes_tiers_and_keeps_every_bucket() {
    let text = |tier: u32| {
        format!(
            "[tiers.mine]\nrequests_per_minute = {tier}\n[anonymous]\nrequests_per_minute = 10\n\
             [consumers.it]\nkeys = [\"{{key:it}}\"]\ncredential = \"teams\"\ntier = \"mine\"\n"
        )
    };
    let fields = headers([("x-api-key", &*given::key("it"))]);
    let first = snapshot(&text(120));
    for _ in 0..60 {
        assert_eq!(call(&first, &fields, PEER, SECOND).1, "ok");
    }
    assert_eq!(remaining(&first, &HeaderMap::new(), PEER), 9);
    let second = Snapshot::build(given::config(&text(240)), Some(&first)).unwrap();
    assert_eq!(remaining(&second, &fields, PEER), 119, "half of it is left, less one");
    assert_eq!(remaining(&second, &HeaderMap::new(), PEER), 8);
    while call(&second, &fields, PEER, SECOND).1 == "ok" {}
    let third = Snapshot::build(given::config(&text(800)), Some(&second)).unwrap();
    assert_eq!(call(&third, &fields, PEER, SECOND).1, "GATEWAY_RATE_LIMITED", "an empty one stays empty");
    assert_eq!(call(&third, &fields, PEER, SECOND + 75_000_000).1, "ok", "and fills at the new pace");
}

#[test]
fn invalid_keys_are_limited_by_address_and_valid_ones_never() {
    let snapshot = snapshot("[consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"teams\"");
    let (bad, other) = (PEER, "192.0.2.200".parse().unwrap());
    let told = |peer, at| {
        snapshot.rate_limits.count_auth_failure(Refusal::Unauthenticated(AuthFailure::Checksum), peer, MonoTime(at))
    };
    for _ in 0..30 {
        assert_eq!(told(bad, SECOND).code(), "GATEWAY_UNAUTHENTICATED");
    }
    let slowed = told(bad, SECOND);
    assert_eq!((slowed.code(), slowed.public_error().retry_after), ("GATEWAY_TOO_MANY_FAILURES", Some(2)));
    assert_eq!(told(other, SECOND).code(), "GATEWAY_UNAUTHENTICATED");
    assert_eq!(told(bad, 3 * SECOND).code(), "GATEWAY_UNAUTHENTICATED");
    let fields = headers([("x-api-key", &*given::key("it"))]);
    assert_eq!(call(&snapshot, &fields, bad, SECOND).1, "ok", "a good key from there");
    let else_refused = snapshot.rate_limits.count_auth_failure(Refusal::UnknownManagedUser, bad, MonoTime(SECOND));
    assert_eq!(else_refused.code(), "GATEWAY_UNKNOWN_MANAGED_USER");
}

#[test]
fn rejected_credentials_are_limited_by_address_and_gateway_keys_never() {
    let snapshot = snapshot(
        "[passthrough]\nenabled = true\nplan = \"teams\"\n[consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"teams\"",
    );
    let (bad, other) = (PEER, "192.0.2.200".parse().unwrap());
    let heeded = |fields: &HeaderMap, peer, at| {
        let caller = snapshot.consumers.identify(fields, peer, now()).unwrap();
        code(snapshot.rate_limits.check_failures(&caller, peer, MonoTime(at)))
    };
    let refused = |fields: &HeaderMap| {
        let caller = snapshot.consumers.identify(fields, bad, now()).unwrap();
        snapshot.rate_limits.count_rejected_credential(&caller, bad, MonoTime(SECOND));
    };
    let own = |n: u32| headers([("authorization", &*format!("Bearer aaaa{n}.bbbb.cccc"))]);
    let key = headers([("x-api-key", &*given::key("it"))]);
    for n in 0..30 {
        assert_eq!(heeded(&own(n), bad, SECOND), "ok");
        refused(&own(n));
        refused(&key);
        refused(&HeaderMap::new());
    }
    assert_eq!(heeded(&own(30), bad, SECOND), "GATEWAY_TOO_MANY_FAILURES");
    assert_eq!(
        snapshot
            .rate_limits
            .count_auth_failure(Refusal::Unauthenticated(AuthFailure::Checksum), bad, MonoTime(SECOND))
            .code(),
        "GATEWAY_TOO_MANY_FAILURES"
    );
    assert_eq!(heeded(&own(30), other, SECOND), "ok");
    assert_eq!(heeded(&own(30), bad, 3 * SECOND), "ok", "a failure is forgiven after two seconds");
    assert_eq!([heeded(&key, bad, SECOND), heeded(&HeaderMap::new(), bad, SECOND)], ["ok", "ok"]);
    (0..30).for_each(|n| refused(&own(n)));
    assert_eq!(
        heeded(&own(31), bad, 60 * SECOND),
        "GATEWAY_TOO_MANY_FAILURES",
        "those that were under way count as well"
    );
    (0..1000).for_each(|n| refused(&own(n)));
    assert_eq!(heeded(&own(31), bad, 601 * SECOND), "ok", "but not for ever");
}

#[test]
fn failures_count_in_a_full_table() {
    let snapshot = snapshot("[passthrough]\nenabled = true\nplan = \"teams\"\n[limits]\ntracked_callers = 16");
    let own = headers([("authorization", "Bearer aaaa.bbbb.cccc")]);
    let caller = snapshot.consumers.identify(&own, PEER, now()).unwrap();
    let heeded =
        |address: &str| code(snapshot.rate_limits.check_failures(&caller, address.parse().unwrap(), MonoTime(SECOND)));
    let fails = |address: &str| {
        snapshot.rate_limits.count_rejected_credential(&caller, address.parse().unwrap(), MonoTime(SECOND));
    };
    (1..=16).for_each(|n| fails(&format!("192.0.2.{n}")));
    for n in 17..47 {
        assert_eq!(heeded("192.0.2.99"), "ok");
        fails(&format!("192.0.2.{n}"));
    }
    assert_eq!(heeded("192.0.2.99"), "GATEWAY_TOO_MANY_FAILURES", "newcomers share what they may");
    assert_eq!(heeded("192.0.2.1"), "ok", "who is known does not");
}
