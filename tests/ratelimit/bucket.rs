//! The token bucket, against governor and against its own promises.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use calgate::ratelimit::{Bucket, Quota};
use calgate::refusal::whole_seconds;
use calgate::time::Tick;
use governor::clock::FakeRelativeClock;
use governor::{Quota as Oracle, RateLimiter};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::properties::cases;

const SECOND: u64 = 1_000_000_000;

fn after(now: Tick, wait: Duration) -> Tick {
    Tick(now.0 + u64::try_from(wait.as_nanos()).unwrap())
}

fn quota() -> impl Strategy<Value = Quota> {
    (1..2000_u32, 1..50_u32).prop_map(|(per_minute, burst)| Quota::per_minute(per_minute, burst))
}

/// Pauses between requests: none, about a token's time, or long.
fn pauses() -> impl Strategy<Value = Vec<u64>> {
    vec(prop_oneof![3 => Just(0), 2 => 0..SECOND, 1 => 0..120 * SECOND, 1 => Just(SECOND / 2)], 1..200)
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn verdicts_are_those_of_governor(quota in quota(), pauses in pauses()) {
        let interval = quota.window() / quota.burst();
        let oracle = Oracle::with_period(interval).unwrap().allow_burst(NonZeroU32::new(quota.burst()).unwrap());
        let clock = FakeRelativeClock::default();
        let oracle = RateLimiter::direct_with_clock(oracle, clock.clone());
        let (bucket, mut now) = (Bucket::default(), Tick(0));
        for pause in pauses {
            now = Tick(now.0 + pause);
            clock.advance(Duration::from_nanos(pause));
            prop_assert_eq!(bucket.take(quota, now).is_ok(), oracle.check().is_ok(), "at {:?}", now);
        }
    }

    #[test]
    fn a_refusal_leaves_the_bucket_as_it_was_and_tells_the_truth(
        takes in vec((quota(), 0..SECOND), 1..100), last in quota(),
    ) {
        let (bucket, mut now) = (Bucket::default(), Tick(0));
        for (quota, pause) in takes {
            now = Tick(now.0 + pause);
            let _ = bucket.take(quota, now);
        }
        while bucket.take(last, now).is_ok() {}
        let before = bucket.standing(last, now);
        let empty = bucket.take(last, now).unwrap_err();
        prop_assert_eq!(empty.standing, before);
        prop_assert_eq!(bucket.standing(last, now), before);
        prop_assert_eq!(before.remaining, 0);
        let too_early = Tick(after(now, empty.retry_after).0 - 1);
        prop_assert!(bucket.take(last, too_early).is_err());
        let seconds = whole_seconds(empty.retry_after);
        prop_assert!(seconds >= 1);
        prop_assert!(bucket.take(last, after(now, Duration::from_secs(seconds))).is_ok());
    }

    #[test]
    fn the_standing_tells_how_many_takes_are_left(quota in quota(), pauses in pauses()) {
        let (bucket, mut now) = (Bucket::default(), Tick(0));
        for pause in pauses {
            now = Tick(now.0 + pause);
            let _ = bucket.take(quota, now);
        }
        let left = bucket.standing(quota, now);
        prop_assert_eq!(left.limit, quota.burst());
        let full = after(now, left.reset);
        prop_assert!(bucket.is_full(full));
        prop_assert_eq!(bucket.standing(quota, full).remaining, quota.burst());
        let taken = (0..=quota.burst()).take_while(|_| bucket.take(quota, now).is_ok()).count();
        prop_assert_eq!(u32::try_from(taken).unwrap(), left.remaining);
    }

    /// The rule of a tier change: the time until the bucket is full again stays what it was.
    #[test]
    fn a_change_of_tier_neither_fills_nor_empties_a_bucket(
        (before, after_it) in (quota(), quota()), takes in 0..60_u32,
    ) {
        let (bucket, now) = (Bucket::default(), Tick(SECOND));
        for _ in 0..takes {
            let _ = bucket.take(before, now);
        }
        let (old, new) = (bucket.standing(before, now), bucket.standing(after_it, now));
        prop_assert_eq!(old.reset, new.reset);
        let again = bucket.standing(before, now);
        prop_assert_eq!(old, again);
    }

    #[test]
    fn no_window_takes_more_than_the_bucket_and_what_came_back(quota in quota(), pauses in pauses()) {
        let (bucket, mut now) = (Bucket::default(), Tick(0));
        let mut taken = Vec::new();
        for pause in pauses {
            now = Tick(now.0 + pause);
            taken.extend(bucket.take(quota, now).is_ok().then_some(now.0));
        }
        let interval = u64::try_from((quota.window() / quota.burst()).as_nanos()).unwrap();
        for (from, first) in taken.iter().enumerate() {
            for (count, last) in taken[from..].iter().enumerate() {
                prop_assert!(count as u64 <= u64::from(quota.burst()) + (last - first) / interval);
            }
        }
    }
}

#[test]
fn tiers_of_the_same_depth_keep_their_share() {
    let (standard, premium) = (Quota::per_minute(120, 120), Quota::per_minute(800, 800));
    let (bucket, now) = (Bucket::default(), Tick(5 * SECOND));
    for _ in 0..60 {
        bucket.take(standard, now).unwrap();
    }
    assert_eq!(bucket.standing(standard, now).remaining, 60);
    assert_eq!(bucket.standing(premium, now).remaining, 400);
    while bucket.take(standard, now).is_ok() {}
    assert!(bucket.take(premium, now).is_err(), "an empty bucket stays empty");
    assert!(bucket.take(premium, Tick(now.0 + 75_000_000)).is_ok(), "and fills at the new pace");
}

#[test]
fn an_interval_that_is_no_whole_number_is_rounded_up() {
    let seven = Quota::per_minute(7, 7);
    assert!(seven.window() >= Duration::from_mins(1));
    assert_eq!(Quota::per_minute(0, 0), Quota::per_minute(1, 1));
    let bucket = Bucket::default();
    assert!(bucket.take(Quota::per_minute(1, u32::MAX), Tick(u64::MAX - 1)).is_ok(), "the end of the clock");
}

#[test]
fn it_is_exact_under_concurrency() {
    let (bucket, taken, quota) = (Bucket::default(), AtomicU32::new(0), Quota::per_minute(60, 10_000));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..2_500 {
                    taken.fetch_add(u32::from(bucket.take(quota, Tick(SECOND)).is_ok()), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(taken.into_inner(), 10_000);
}
