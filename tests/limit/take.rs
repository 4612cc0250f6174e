//! Who pays from which bucket, and what a reload keeps.

use std::net::IpAddr;

use calgate::gateway::App;
use calgate::ratelimit::Standing;
use calgate::refusal::{AuthFailure, Refusal};
use calgate::time::Tick;
use http::HeaderMap;

use crate::given::{self, PEER, app, code, find, headers, now};

const SECOND: u64 = 1_000_000_000;

/// One `GET /v2/slots`, which is public, with `fields` from `peer`.
fn call(app: &App, fields: &HeaderMap, peer: IpAddr, at: u64) -> (Option<Standing>, &'static str) {
    let caller = app.consumers.identify(fields, peer, now()).unwrap();
    let grant = app.entitlements.grant(caller, find("GET /v2/slots").unwrap()).unwrap();
    let (standing, permit) = app.buckets.take(grant, Tick(at));
    (standing, code(permit))
}

fn remaining(app: &App, fields: &HeaderMap, peer: IpAddr) -> u32 {
    call(app, fields, peer, SECOND).0.unwrap().remaining
}

#[test]
fn the_shipped_tiers_are_120_200_and_800_a_minute() {
    let consumer = |name: &str, tier: &str| {
        format!("[consumers.{name}]\nkeys = [\"{{key:{name}}}\"]\ncredential = \"teams\"\n{tier}\n")
    };
    let app = app(&[
        consumer("plain", ""),
        consumer("elevated", "tier = \"elevated\""),
        consumer("premium", "tier = \"premium\""),
        consumer("own", "tier = \"own\""),
        "[tiers.own]\nrequests_per_minute = 30\nburst = 5\n".to_owned(),
    ]
    .concat());
    for (name, burst) in [("plain", 120), ("elevated", 200), ("premium", 800), ("own", 5)] {
        let key = given::key(name);
        let taken =
            (0..1000).take_while(|_| call(&app, &headers([("x-api-key", &key)]), PEER, SECOND).1 == "ok").count();
        assert_eq!(taken, burst, "{name}");
        let (standing, refused) = call(&app, &headers([("x-api-key", &key)]), PEER, SECOND);
        assert_eq!((standing.unwrap().remaining, refused), (0, "GATEWAY_RATE_LIMITED"));
    }
}

#[test]
fn all_keys_of_a_consumer_share_its_bucket_and_no_two_consumers_do() {
    let app = app("[consumers.one]\nkeys = [\"{key:one-a}\", \"{key:one-b}\"]\ncredential = \"teams\"\n\
                   [consumers.two]\nkeys = [\"{key:two}\"]\ncredential = \"teams\"\n[anonymous]\nconsumer = \"two\"");
    let by = |name| headers([("x-api-key", &*given::key(name))]);
    assert_eq!(remaining(&app, &by("one-a"), PEER), 119);
    assert_eq!(remaining(&app, &by("one-b"), PEER), 118);
    assert_eq!(remaining(&app, &by("two"), PEER), 119);
    assert_eq!(remaining(&app, &HeaderMap::new(), PEER), 118, "who has no key is `two` here");
}

#[test]
fn callers_without_a_key_pay_by_address() {
    let app = app("[anonymous]\nrequests_per_minute = 10");
    let from = |address: &str| remaining(&app, &HeaderMap::new(), address.parse().unwrap());
    assert_eq!((from("192.0.2.1"), from("192.0.2.1"), from("192.0.2.2")), (9, 8, 9));
    assert_eq!((from("2001:db8::1"), from("2001:db8::ffff:2"), from("2001:db8:0:1::1")), (9, 8, 9));
    assert_eq!(from("::ffff:192.0.2.1"), 7);
}

#[test]
fn passthrough_callers_pay_by_credential_from_the_tier_of_that_section() {
    let app = app("[passthrough]\nenabled = true\nplan = \"teams\"\ntier = \"elevated\"");
    let by = |token: &str| headers([("authorization", token)]);
    assert_eq!(remaining(&app, &by("Bearer cal_live_aaaaaaaa"), PEER), 199);
    assert_eq!(remaining(&app, &by("bearer  cal_live_aaaaaaaa"), "192.0.2.9".parse().unwrap()), 198);
    assert_eq!(remaining(&app, &by("Bearer cal_live_bbbbbbbb"), PEER), 199);
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
    let first = app(&text(120));
    for _ in 0..60 {
        assert_eq!(call(&first, &fields, PEER, SECOND).1, "ok");
    }
    assert_eq!(remaining(&first, &HeaderMap::new(), PEER), 9);
    let second = App::build(given::config(&text(240)), Some(&first)).unwrap();
    assert_eq!(remaining(&second, &fields, PEER), 119, "half of it is left, less one");
    assert_eq!(remaining(&second, &HeaderMap::new(), PEER), 8);
    while call(&second, &fields, PEER, SECOND).1 == "ok" {}
    let third = App::build(given::config(&text(800)), Some(&second)).unwrap();
    assert_eq!(call(&third, &fields, PEER, SECOND).1, "GATEWAY_RATE_LIMITED", "an empty one stays empty");
    assert_eq!(call(&third, &fields, PEER, SECOND + 75_000_000).1, "ok", "and fills at the new pace");
}

#[test]
fn bad_keys_are_slowed_by_address_and_good_ones_never() {
    let app = app("[consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"teams\"");
    let (bad, other) = (PEER, "192.0.2.200".parse().unwrap());
    let told =
        |peer, at| app.buckets.count_auth_failure(Refusal::Unauthenticated(AuthFailure::Checksum), peer, Tick(at));
    for _ in 0..30 {
        assert_eq!(told(bad, SECOND).code(), "GATEWAY_UNAUTHENTICATED");
    }
    let slowed = told(bad, SECOND);
    assert_eq!((slowed.code(), slowed.outward().retry_after), ("GATEWAY_TOO_MANY_FAILURES", Some(2)));
    assert_eq!(told(other, SECOND).code(), "GATEWAY_UNAUTHENTICATED");
    assert_eq!(told(bad, 3 * SECOND).code(), "GATEWAY_UNAUTHENTICATED");
    let fields = headers([("x-api-key", &*given::key("it"))]);
    assert_eq!(call(&app, &fields, bad, SECOND).1, "ok", "a good key from there");
    let else_refused = app.buckets.count_auth_failure(Refusal::UnknownManagedUser, bad, Tick(SECOND));
    assert_eq!(else_refused.code(), "GATEWAY_UNKNOWN_MANAGED_USER");
}

#[test]
fn credentials_that_cal_com_refused_are_slowed_by_address_and_gateway_keys_never() {
    let app = app(
        "[passthrough]\nenabled = true\nplan = \"teams\"\n[consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"teams\"",
    );
    let (bad, other) = (PEER, "192.0.2.200".parse().unwrap());
    let heeded = |fields: &HeaderMap, peer, at| {
        let caller = app.consumers.identify(fields, peer, now()).unwrap();
        code(app.buckets.heed_failures(&caller, peer, Tick(at)))
    };
    let refused = |fields: &HeaderMap| {
        let caller = app.consumers.identify(fields, bad, now()).unwrap();
        app.buckets.note_refused(&caller, bad, Tick(SECOND));
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
        app.buckets.count_auth_failure(Refusal::Unauthenticated(AuthFailure::Checksum), bad, Tick(SECOND)).code(),
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
fn failures_count_where_more_addresses_fail_than_are_told_apart() {
    let app = app("[passthrough]\nenabled = true\nplan = \"teams\"\n[limits]\ntracked_callers = 16");
    let own = headers([("authorization", "Bearer aaaa.bbbb.cccc")]);
    let caller = app.consumers.identify(&own, PEER, now()).unwrap();
    let heeded = |address: &str| code(app.buckets.heed_failures(&caller, address.parse().unwrap(), Tick(SECOND)));
    let fails = |address: &str| app.buckets.note_refused(&caller, address.parse().unwrap(), Tick(SECOND));
    (1..=16).for_each(|n| fails(&format!("192.0.2.{n}")));
    for n in 17..47 {
        assert_eq!(heeded("192.0.2.99"), "ok");
        fails(&format!("192.0.2.{n}"));
    }
    assert_eq!(heeded("192.0.2.99"), "GATEWAY_TOO_MANY_FAILURES", "newcomers share what they may");
    assert_eq!(heeded("192.0.2.1"), "ok", "who is known does not");
}
