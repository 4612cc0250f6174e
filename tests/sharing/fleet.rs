//! Eight gateways of the real program on one credential and one store.

use std::time::Duration;

use super::joined;
use crate::harness::{Fleet, Redis, Terms};

fn terms(limit: u32, window: Duration) -> Terms {
    Terms { gateways: 8, limit, window, quirk: false, config: String::new(), per_minute: 1_000_000 }
}

/// The gateways go by the store all the time, or the machine had no time for them and the rules without a store held for a
/// while, with which less is used.
fn on_the_store(fleet: &Fleet) -> bool {
    let losses = fleet.losses();
    if losses > 0 {
        println!(
            "the store was given up {losses} times, for calls took longer than they may: nothing is said of what was used"
        );
    }
    losses == 0
}

/// Much more is asked for than there is. After the first burst, `windows` windows are looked at.
fn saturated(limit: u32, window: Duration, windows: u32) {
    let redis = Redis::start();
    let fleet =
        Fleet::start(&Terms { quirk: true, ..terms(limit, window) }, |_| format!("redis = \"{}\"", redis.url()));
    joined(&fleet);
    let mut used = 0;
    let tally = fleet.load(32, Duration::ZERO, window * (windows + 1), || {
        std::thread::sleep(window);
        let before = fleet.sim.seen_count();
        std::thread::sleep(window * windows);
        used = fleet.sim.seen_count() - before;
    });
    let granted = (limit * windows) as usize;
    println!("{used} of {granted}, p99 {:?}, {:?}", tally.p99(), tally.answers);
    assert_eq!(fleet.sim.rate_limited(), 0, "{:?}", tally.answers);
    assert_eq!(tally.of(200) + tally.of(429), tally.answers.values().sum::<usize>(), "{:?}", tally.answers);
    if on_the_store(&fleet) {
        assert!(used * 100 >= granted * 95, "{used} of {granted}; {:?}", tally.answers);
    }
}

/// Nine tenths of what there is are asked for, at random moments.
fn busy(limit: u32, window: Duration) {
    let redis = Redis::start();
    let fleet =
        Fleet::start(&Terms { quirk: true, ..terms(limit, window) }, |_| format!("redis = \"{}\"", redis.url()));
    joined(&fleet);
    let per_second = f64::from(limit) * 0.9 / window.as_secs_f64();
    let tally = fleet.random_load(per_second, window * 4, || {});
    println!("p99 {:?}, {:?}", tally.p99(), tally.answers);
    assert_eq!(fleet.sim.rate_limited(), 0, "{:?}", tally.answers);
    if on_the_store(&fleet) {
        assert_eq!(tally.of(200), tally.answers.values().sum::<usize>(), "{:?}", tally.answers);
    }
}

#[test]
fn a_saturated_credential_is_used_up_and_never_exceeded() {
    saturated(120, Duration::from_secs(4), 4);
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
