//! Usage by other clients of the credential: how responses show it, and what is reserved for them.

use std::time::Duration;

use calgate::ratelimit::Settings;
use calgate::ratelimit::fair_queue::{Flow, Priority};
use calgate::ratelimit::limiter::{BudgetLimiter, Decision, InFlight};
use calgate::ratelimit::other_clients::{ExternalUsage, WindowSize};
use calgate::ratelimit::usage_headers::{LimitReading, LimitReadings, UpstreamOutcome};
use calgate::time::MonoTime;

use crate::ratelimit::table::limiter::{Limiter, NamedLimit};

const WINDOW: Duration = Duration::from_secs(60);
const WHOLE: WindowSize = WindowSize { length: WINDOW, limit: 100 };
const ASKER: Flow = Flow { key: 1, weight: 1, priority: Priority::Default };

fn at(seconds: u64) -> MonoTime {
    MonoTime::default().after(Duration::from_secs(seconds))
}

/// A window of 100 that began at 0. Others had used `others` when our only other response came, at `told`.
fn seen(others: u32, told: u64) -> ExternalUsage {
    let mut foreign = ExternalUsage::new(99, at(0), at(0));
    foreign.count_own();
    foreign.observe(98 - others, 0, at(told));
    foreign
}

fn next(foreign: ExternalUsage, now: u64) -> ExternalUsage {
    foreign.next_window(99, (at(now), at(now)), WHOLE, true)
}

#[test]
fn own_requests_are_not_attributed_to_others() {
    let mut foreign = ExternalUsage::new(99, at(0), at(0));
    for left in (90..99).rev() {
        foreign.count_own();
        foreign.observe(left, 2, at(10));
    }
    assert_eq!(foreign.seen(), 0);
    assert_eq!(foreign.reserved_for_others(at(10), at(60), WHOLE, 0, true), 0);
}

#[test]
fn usage_in_a_part_of_a_window_is_expected_in_all_of_the_next() {
    assert_eq!(next(seen(6, 60), 61).seen(), 6);
    assert_eq!(next(seen(6, 30), 61).seen(), 12);
    let hardly_watched = next(seen(6, 1), 61);
    assert_eq!(hardly_watched.seen(), 24, "as if a quarter of the window had been watched");
    assert_eq!(next(hardly_watched, 121).seen(), 18, "what is not seen again fades");
    assert_eq!(next(seen(20, 1), 61).seen(), 50, "half of the limit, and no more");
    assert_eq!(next(seen(70, 1), 61).seen(), 70, "but what was seen was seen");
}

#[test]
fn capacity_is_reserved_for_usage_since_the_last_response() {
    let foreign = next(seen(0, 0), 0);
    assert_eq!(foreign.reserved_for_others(at(50), at(60), WHOLE, 0, true), 0, "nobody is there");
    let mut foreign = next(seen(24, 60), 60);
    let last_told = foreign.reserved_for_others(at(110), at(120), WHOLE, 0, true);
    assert_eq!(last_told, 24 + 8 + 2, "of the whole window, and four deviations of the four that are still to come");
    foreign.count_own();
    foreign.observe(78, 0, at(110));
    assert_eq!(foreign.reserved_for_others(at(110), at(120), WHOLE, 0, true), 4 + 8 + 2, "told a moment ago");
    foreign.observe(78, 0, at(70));
    assert_eq!(
        foreign.reserved_for_others(at(110), at(120), WHOLE, 0, true),
        4 + 8 + 2,
        "a late answer takes nothing back"
    );
}

#[test]
fn more_than_the_observed_usage_is_reserved_in_a_first_window() {
    let foreign = seen(9, 30);
    let rate = (9 + 6) * 2;
    assert_eq!(foreign.reserved_for_others(at(30), at(60), WHOLE, 0, true), rate / 2 + 15 + 2);
}

#[test]
fn several_gateways_reserve_only_the_suspected_usage() {
    let foreign = seen(24, 30);
    assert_eq!(foreign.reserved_for_others(at(30), at(60), WHOLE, 0, false), 0);
    assert_eq!(foreign.reserved_for_others(at(30), at(60), WHOLE, 40, false), 20 + 16 + 2);
    assert_eq!(foreign.reserved_for_others(at(60), at(60), WHOLE, 40, false), 2);
    assert_eq!(foreign.next_window(99, (at(60), at(60)), WHOLE, false).seen(), 0, "they may have been other gateways'");
}

fn limiter(replicas: u32) -> BudgetLimiter {
    BudgetLimiter::new(Settings { limit: 120, window: WINDOW, replicas, learn_limit: false }, 1)
}

fn send(limiter: &mut BudgetLimiter, now: MonoTime) -> Option<InFlight> {
    match limiter.admit(&ASKER, Duration::ZERO, now) {
        Decision::Admit(flight) => Some(flight),
        Decision::Reject(_) => None,
        Decision::Queue(ticket, _) => {
            limiter.cancel(ticket, &ASKER);
            None
        }
    }
}

fn told(remaining: u32, reset: u64) -> LimitReadings {
    let reset = Duration::from_secs(reset);
    LimitReadings {
        limits: std::iter::once(LimitReading { name: 1, limit: Some(120), remaining, reset }).collect(),
        has_implausible: false,
    }
}

/// Records two responses, between which another client used 40 requests.
fn sees_forty_of_somebody(limiter: &mut BudgetLimiter) {
    for (second, remaining) in [(1, 119), (10, 78)] {
        let flight = send(limiter, at(second)).unwrap();
        limiter.record_response(&flight, UpstreamOutcome::Passed, &told(remaining, 61 - second), at(second));
    }
}

#[test]
fn usage_by_gateways_is_not_attributed_to_others_once_one_is_alone() {
    let mut alone = limiter(1);
    sees_forty_of_somebody(&mut alone);
    assert_eq!(alone.status(at(11)).foreign, 40);
    let mut one_of_two = limiter(2);
    sees_forty_of_somebody(&mut one_of_two);
    one_of_two.configure(Settings { limit: 120, window: WINDOW, replicas: 1, learn_limit: false });
    assert_eq!(one_of_two.status(at(11)).foreign, 0);
}

#[test]
fn usage_that_the_store_reports_stays_known_when_the_store_is_lost() {
    let mut limiter = limiter(1);
    limiter.enter_shared_mode(2);
    sees_forty_of_somebody(&mut limiter);
    assert_eq!(limiter.status(at(11)).foreign, 0);
    limiter.merge_store_state(&[], 7, at(11));
    assert_eq!(limiter.status(at(11)).foreign, 7);
    limiter.leave_shared_mode(1, Duration::ZERO, at(11));
    assert_eq!(limiter.status(at(11)).foreign, 7);
}

/// Returns our requests that Cal.com accepts in each of four minutes. 150 per minute arrive, and another program sends `burst`
/// requests at once, at two seconds.
fn passed_beside_a_burst_of(burst: u32) -> [u32; 4] {
    let named = NamedLimit { name: "Default".to_owned(), limit: 120, window: WINDOW, block: WINDOW };
    let (mut cal, mut limiter, mut passed) = (Limiter::new(vec![named], false), limiter(1), [0; 4]);
    for ask in 0..600_usize {
        let now = at(100).after(Duration::from_millis(400) * u32::try_from(ask).unwrap());
        if ask == 5 {
            (0..burst).for_each(|_| drop(cal.hit(now.since(MonoTime::default()))));
        }
        if let Some(flight) = send(&mut limiter, now) {
            let verdict = cal.hit(now.since(MonoTime::default()));
            assert!(!verdict.refused, "burst {burst}, request {ask}: {passed:?}");
            let standing = &verdict.standings[0];
            limiter.record_response(
                &flight,
                UpstreamOutcome::Passed,
                &told(standing.remaining, standing.reset_seconds),
                now,
            );
            passed[ask / 150] += 1;
        }
    }
    passed
}

#[test]
fn a_short_burst_of_others_does_not_stop_this_gateway() {
    assert_eq!(passed_beside_a_burst_of(0), [120; 4]);
    for burst in [20, 30, 50] {
        let passed = passed_beside_a_burst_of(burst);
        assert!(passed[0] >= 80 || burst == 50, "{burst}: {passed:?}");
        assert!(passed[1..].iter().all(|&passed| passed >= 100), "{burst}: {passed:?}");
    }
}
