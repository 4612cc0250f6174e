//! Eight gateways of the real program on one credential and one store.

use std::cell::Cell;
use std::time::Duration;

use super::joined;
use crate::harness::{Fleet, Redis, Tally, Terms, eventually};

fn terms(limit: u32, window: Duration) -> Terms {
    Terms { gateways: 8, limit, window, quirk: false, others: 0, config: String::new(), per_minute: 1_000_000 }
}

/// Runs a fleet until it is undisturbed. Where a machine has no time for gateways, calls take longer than they may, and rules
/// without a store hold for a while, with which less is used. Whatever happens, Cal.com never says no.
fn undisturbed(limit: u32, window: Duration, load: impl Fn(&Fleet) -> Tally) -> Tally {
    let run = |_| {
        let redis = Redis::start();
        let terms = Terms { quirk: true, ..terms(limit, window) };
        let fleet = Fleet::start(&terms, |_| format!("redis = \"{}\"", redis.url()));
        joined(&fleet);
        let tally = load(&fleet);
        println!("p99 {:?}, {:?}", tally.p99(), tally.answers);
        assert_eq!(fleet.sim.rate_limited(), 0, "{:?}", tally.answers);
        assert_eq!(tally.of(200) + tally.of(429), tally.answers.values().sum::<usize>(), "{:?}", tally.answers);
        (fleet.losses() == 0).then_some(tally)
    };
    (0..5).find_map(run).expect("in one of five runs the store is never given up")
}

/// Much more is asked for than there is. After the first burst, `windows` windows are looked at.
fn saturated(limit: u32, window: Duration, windows: u32) -> Tally {
    let used = Cell::new(0);
    let tally = undisturbed(limit, window, |fleet| {
        fleet.load(32, Duration::ZERO, window * (windows + 1), || {
            std::thread::sleep(window);
            let before = fleet.sim.seen_count();
            std::thread::sleep(window * windows);
            used.set(fleet.sim.seen_count() - before);
        })
    });
    let (used, granted) = (used.get(), (limit * windows) as usize);
    println!("{used} of {granted}");
    assert!(used * 100 >= granted * 95, "{used} of {granted}; {:?}", tally.answers);
    tally
}

/// Nine tenths of what there is are asked for, at random moments; all of it is served.
fn busy(limit: u32, window: Duration) {
    let per_second = f64::from(limit) * 0.9 / window.as_secs_f64();
    let tally = undisturbed(limit, window, |fleet| fleet.random_load(per_second, window * 4, || {}));
    assert_eq!(tally.of(429), 0, "{:?}", tally.answers);
}

#[test]
fn others_on_the_credential_are_seen_in_the_metrics_of_every_gateway() {
    let redis = Redis::start();
    let terms = Terms { gateways: 2, others: 240, ..terms(60, Duration::from_secs(3)) };
    let fleet = Fleet::start(&terms, |_| format!("redis = \"{}\"", redis.url()));
    joined(&fleet);
    eventually("others in the metrics", || {
        assert_eq!(fleet.ask(0).0, 200);
        // It is the store that sees them: this one has sent nothing that would have told it.
        (fleet.gateways[1].metric("calgate_budget_foreign", "main") > 0).then_some(())
    });
    assert_eq!(fleet.sim.rate_limited(), 0);
}

#[test]
fn a_block_that_one_gateway_runs_into_holds_the_others_and_is_logged_by_that_one() {
    let redis = Redis::start();
    // Another program uses the credential up, faster than anyone can be told of it.
    let terms = Terms { gateways: 2, others: 60_000, ..terms(60, Duration::from_secs(60)) };
    let fleet = Fleet::start(&terms, |_| format!("redis = \"{}\"", redis.url()));
    joined(&fleet);
    let held = (429, "GATEWAY_UPSTREAM_BUDGET".to_owned());
    let block = "Cal.com's limiter refused a request";
    assert_eq!(fleet.ask(0).0, 200);
    fleet.sim.advance(Duration::from_secs(1));
    assert_eq!(fleet.ask(0), held);
    let line = fleet.gateways[0].logged(block);
    assert!(line.contains(r#""level":"WARN""#) && line.contains(r#""credential":"main""#), "{line}");
    // The answer does not wait for the store to be told.
    eventually("the store told of it", || redis.cli(&["keys", "calgate:*:flying"]).trim().is_empty().then_some(()));
    let asked = fleet.sim.seen_count();
    assert_eq!(fleet.ask(1), held);
    assert_eq!(fleet.sim.seen_count(), asked, "what the one was told holds for the other");
    assert!(!fleet.gateways[1].log().iter().any(|line| line.contains(block)), "nothing is logged twice");
}

#[test]
fn a_saturated_credential_is_used_up_and_never_exceeded() {
    let tally = saturated(120, Duration::from_secs(4), 4);
    assert!(tally.of(200) * 100 >= 120 * 5 * 95, "{:?}", tally.answers);
}

#[test]
fn a_saturated_credential_of_eight_hundred_is_used_up_and_never_exceeded() {
    // With shorter windows it is the machine that is saturated.
    saturated(800, Duration::from_secs(8), 2);
}

#[test]
fn a_busy_credential_serves_everything() {
    busy(120, Duration::from_secs(4));
}

#[test]
fn a_busy_credential_of_eight_hundred_serves_everything() {
    busy(800, Duration::from_secs(8));
}

#[test]
fn a_consumer_has_its_requests_once_and_not_once_in_each_gateway() {
    let redis = Redis::start();
    let terms =
        Terms { config: "mode = \"off\"".to_owned(), per_minute: 40, ..terms(100_000, Duration::from_secs(60)) };
    let fleet = Fleet::start(&terms, |_| format!("redis = \"{}\"", redis.url()));
    let length = Duration::from_secs(3);
    let tally = fleet.load(32, Duration::from_millis(5), length, || {});
    println!("{:?}", tally.answers);
    // 40 at once, and one in each 1.5 seconds. Where a gateway had no answer in time, a token may be gone that nobody got.
    assert!((35..=42).contains(&tally.of(200)), "{:?}", tally.answers);
}
