//! Eight gateways of the real program on one credential and one store.

use std::time::Duration;

use super::joined;
use crate::harness::{Fleet, Redis, Terms};

fn terms(limit: u32, window: Duration) -> Terms {
    Terms { gateways: 8, limit, window, quirk: false, config: String::new(), per_minute: 1_000_000 }
}

#[test]
fn a_saturated_credential_is_used_up_and_never_exceeded() {
    let redis = Redis::start();
    let window = Duration::from_secs(4);
    let fleet = Fleet::start(&Terms { quirk: true, ..terms(120, window) }, |_| format!("redis = \"{}\"", redis.url()));
    joined(&fleet);
    let tally = fleet.load(48, Duration::ZERO, window * 3, || {});
    // Of three windows, and of what is left of the one before.
    let (used, granted) = (tally.of(200), 120 * 3);
    println!("{used} of {granted}, p99 {:?}, {:?}", tally.p99(), tally.answers);
    assert_eq!(fleet.sim.rate_limited(), 0, "{:?}", tally.answers);
    assert_eq!(tally.of(200) + tally.of(429), tally.answers.values().sum::<usize>(), "{:?}", tally.answers);
    assert!(used * 100 >= granted * 95, "{used} of {granted}; {:?}", tally.answers);
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
