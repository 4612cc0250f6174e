//! Long-run demand of consumers.

use std::time::Duration;

use calgate::ratelimit::demand::{DemandLevel, DemandTracker, SharedLimit};
use calgate::time::MonoTime;

const MINUTE: Duration = Duration::from_secs(60);
/// Ten gateways share 120 requests per minute: twelve at each, if requests are divided evenly.
const FAIR: SharedLimit = SharedLimit { limit: 120, window: MINUTE, gateways: 10 };

fn at(seconds: u64) -> MonoTime {
    MonoTime::default().after(Duration::from_secs(seconds))
}

/// Records a request of the consumer `key` every `every` seconds.
fn asks(asked: &mut DemandTracker, key: u64, from: u64, until: u64, every: usize) {
    for second in (from..until).step_by(every) {
        asked.record(key, 100, &FAIR, at(second));
    }
}

#[test]
fn demand_for_a_share_is_within_it_after_one_window() {
    let mut asked = DemandTracker::default();
    assert_eq!(asked.level(1, &FAIR, at(0)), DemandLevel::Unknown);
    asks(&mut asked, 1, 0, 600, 10);
    asks(&mut asked, 2, 0, 600, 10);
    assert_eq!(asked.level(1, &FAIR, at(59)), DemandLevel::Unknown);
    assert_eq!(asked.level(1, &FAIR, at(600)), DemandLevel::Within);
}

#[test]
fn demand_above_a_share_is_over_it_until_it_falls() {
    let mut asked = DemandTracker::default();
    asks(&mut asked, 1, 0, 600, 10);
    asks(&mut asked, 2, 0, 600, 1);
    assert_eq!(asked.level(2, &FAIR, at(600)), DemandLevel::Over);
    assert_eq!(asked.level(1, &FAIR, at(600)), DemandLevel::Within);
    // The demand above the share is bounded by two windows' shares and the tolerated burst.
    asks(&mut asked, 2, 600, 800, 20);
    assert_eq!(asked.level(2, &FAIR, at(800)), DemandLevel::Within);
}

#[test]
fn a_random_burst_is_within_a_share() {
    let mut asked = DemandTracker::default();
    asks(&mut asked, 1, 0, 120, 12);
    (0..9).for_each(|_| asked.record(1, 100, &FAIR, at(120)));
    assert_eq!(asked.level(1, &FAIR, at(120)), DemandLevel::Within);
    (0..9).for_each(|_| asked.record(1, 100, &FAIR, at(120)));
    assert_eq!(asked.level(1, &FAIR, at(120)), DemandLevel::Over);
}

#[test]
fn an_idle_consumer_is_forgotten_and_the_others_have_its_share() {
    let mut asked = DemandTracker::default();
    asks(&mut asked, 1, 0, 60, 10);
    asks(&mut asked, 2, 0, 3600, 30);
    assert_eq!(asked.weights(), 100);
    assert_eq!(asked.level(1, &FAIR, at(3600)), DemandLevel::Unknown);
}

#[test]
fn a_thousand_consumers_with_tiny_shares_are_forgotten() {
    let mut asked = DemandTracker::default();
    (0..1000).for_each(|key| asked.record(key, 100, &FAIR, at(0)));
    assert_eq!(asked.weights(), 100_000);
    asked.record(1000, 100, &FAIR, at(16 * 60 + 1));
    assert_eq!(asked.weights(), 100);
}

#[test]
fn a_consumer_counts_with_its_current_weight() {
    let mut asked = DemandTracker::default();
    asks(&mut asked, 1, 0, 600, 1);
    asked.record(2, 900, &FAIR, at(600));
    asked.record(2, 300, &FAIR, at(600));
    assert_eq!(asked.weights(), 400);
}

#[test]
fn a_share_among_many_gateways_stays_one_among_few() {
    let mut asked = DemandTracker::default();
    let many = SharedLimit { gateways: 50, ..FAIR };
    for second in (0..1200).step_by(60) {
        asked.record(1, 100, &many, at(second));
        asked.record(2, 100, &many, at(second));
    }
    assert_eq!(asked.level(1, &many, at(1200)), DemandLevel::Within);
    assert_eq!(asked.level(1, &SharedLimit { gateways: 2, ..FAIR }, at(1200)), DemandLevel::Within);
}
