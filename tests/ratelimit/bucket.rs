//! Token bucket: governor and its adapter against a model, and against each other.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use calgate::ratelimit::{Bucket, Exhausted, Quota, RateLimitStatus};
use calgate::refusal::retry_after_secs;
use calgate::time::MonoTime;
use governor::RateLimiter;
use governor::clock::FakeRelativeClock;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::properties::cases;

const SECOND: u64 = 1_000_000_000;

fn after(now: MonoTime, wait: Duration) -> MonoTime {
    MonoTime(now.0 + u64::try_from(wait.as_nanos()).unwrap())
}

fn quota() -> impl Strategy<Value = Quota> {
    (1..2000_u32, 1..50_u32).prop_map(|(per_minute, burst)| Quota::per_minute(per_minute, burst))
}

/// The other form of the algorithm in ITU-T I.371, annex A: a leaky bucket. Its level is the time until it is empty, which is the
/// time until our bucket is full. governor has the first form, the theoretical arrival time.
#[derive(Default)]
struct LeakyBucket {
    level: i128,
    measured: i128,
}

impl LeakyBucket {
    fn level(&self, now: MonoTime) -> u64 {
        let drained = i128::from(now.0) - self.measured;
        u64::try_from((self.level - drained).max(0)).unwrap()
    }

    fn fill(&mut self, level: u64, now: MonoTime) {
        *self = Self { level: level.into(), measured: now.0.into() };
    }

    fn status(&self, quota: Quota, now: MonoTime) -> RateLimitStatus {
        let (level, interval, limit) = (self.level(now), quota.interval_ns(), quota.burst());
        let fits = (1..=limit).take_while(|n| level + interval * u64::from(*n) <= interval * u64::from(limit)).count();
        let window = Duration::from_nanos(interval * u64::from(limit));
        RateLimitStatus { limit, remaining: fits.try_into().unwrap(), reset: Duration::from_nanos(level), window }
    }

    fn check(&self, quota: Quota, now: MonoTime) -> Result<RateLimitStatus, Exhausted> {
        let tolerance = quota.interval_ns() * u64::from(quota.burst() - 1);
        let status = self.status(quota, now);
        match self.level(now).saturating_sub(tolerance) {
            0 => Ok(status),
            over => Err(Exhausted { status, retry_after: Duration::from_nanos(over) }),
        }
    }

    fn take(&mut self, quota: Quota, now: MonoTime) -> Result<RateLimitStatus, Exhausted> {
        self.check(quota, now)?;
        self.fill(self.level(now) + quota.interval_ns(), now);
        Ok(self.status(quota, now))
    }

    fn merge(&mut self, full_at: MonoTime, now: MonoTime) {
        self.fill(self.level(now).max(full_at.0.saturating_sub(now.0)), now);
    }
}

/// Call of a bucket.
#[derive(Debug, Clone)]
enum Call {
    Take,
    Check,
    /// The bucket becomes full that many nanoseconds later at the earliest.
    Learn(u64),
    /// From here on a copy is used, as for a new key of a table.
    Copy,
}

/// Calls: each with one of two tiers, after a pause or, because threads overtake each other, somewhat before the last one.
fn calls() -> impl Strategy<Value = Vec<(Call, usize, i64)>> {
    let call = prop_oneof![
        12 => Just(Call::Take), 4 => Just(Call::Check), 1 => (0..90 * SECOND).prop_map(Call::Learn), 1 => Just(Call::Copy),
    ];
    let second = SECOND.cast_signed();
    let pause = prop_oneof![6 => Just(0), 4 => 0..second, 1 => 0..120 * second, 1 => -second / 10..0];
    vec((call, 0..2_usize, pause), 1..200)
}

/// Pauses between requests: none, about a token's time, or long.
fn pauses() -> impl Strategy<Value = Vec<u64>> {
    vec(prop_oneof![3 => Just(0), 2 => 0..SECOND, 1 => 0..120 * SECOND, 1 => Just(SECOND / 2)], 1..200)
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn decisions_are_those_of_a_leaky_bucket(tiers in [quota(), quota()], calls in calls()) {
        let (mut bucket, mut model, mut now) = (Bucket::default(), LeakyBucket::default(), MonoTime(SECOND));
        for (call, tier, pause) in calls {
            now = MonoTime(now.0.saturating_add_signed(pause));
            let quota = tiers[tier];
            match call {
                Call::Take => prop_assert_eq!(bucket.take(quota, now), model.take(quota, now), "at {:?}", now),
                Call::Check => prop_assert_eq!(bucket.check(quota, now), model.check(quota, now), "at {:?}", now),
                Call::Learn(ahead) => {
                    bucket.merge(MonoTime(now.0 + ahead));
                    model.merge(MonoTime(now.0 + ahead), now);
                }
                Call::Copy => bucket = bucket.fork(),
            }
            prop_assert_eq!(bucket.status(quota, now), model.status(quota, now));
            prop_assert_eq!(bucket.is_full(now), model.level(now) == 0);
            let wait = model.check(quota, now).err().map(|empty| empty.retry_after);
            prop_assert_eq!(quota.wait_for(Duration::from_nanos(model.level(now))), wait);
        }
    }

    /// The state and the clock of the adapter change nothing: governor decides as with its own.
    #[test]
    fn the_adapter_changes_no_decision_of_governor(quota in quota(), pauses in pauses()) {
        let interval = quota.window() / quota.burst();
        let burst = NonZeroU32::new(quota.burst()).unwrap();
        let plain = governor::Quota::with_period(interval).unwrap().allow_burst(burst);
        let clock = FakeRelativeClock::default();
        let plain = RateLimiter::direct_with_clock(plain, clock.clone());
        let (bucket, mut now) = (Bucket::default(), MonoTime(0));
        for pause in pauses {
            now = MonoTime(now.0 + pause);
            clock.advance(Duration::from_nanos(pause));
            prop_assert_eq!(bucket.take(quota, now).is_ok(), plain.check().is_ok(), "at {:?}", now);
        }
    }

    #[test]
    fn a_refusal_changes_no_bucket_and_reports_the_exact_wait(
        takes in vec((quota(), 0..SECOND), 1..100), last in quota(),
    ) {
        let (bucket, mut now) = (Bucket::default(), MonoTime(0));
        for (quota, pause) in takes {
            now = MonoTime(now.0 + pause);
            let _ = bucket.take(quota, now);
        }
        while bucket.take(last, now).is_ok() {}
        let before = bucket.status(last, now);
        let empty = bucket.take(last, now).unwrap_err();
        prop_assert_eq!(empty.status, before);
        prop_assert_eq!(bucket.status(last, now), before);
        prop_assert_eq!(before.remaining, 0);
        let too_early = MonoTime(after(now, empty.retry_after).0 - 1);
        prop_assert!(bucket.take(last, too_early).is_err());
        let seconds = retry_after_secs(empty.retry_after);
        prop_assert!(seconds >= 1);
        prop_assert!(bucket.take(last, after(now, Duration::from_secs(seconds))).is_ok());
    }

    #[test]
    fn the_status_reports_the_remaining_tokens(quota in quota(), pauses in pauses()) {
        let (bucket, mut now) = (Bucket::default(), MonoTime(0));
        for pause in pauses {
            now = MonoTime(now.0 + pause);
            let _ = bucket.take(quota, now);
        }
        let left = bucket.status(quota, now);
        prop_assert_eq!(left.limit, quota.burst());
        let full = after(now, left.reset);
        prop_assert!(bucket.is_full(full));
        prop_assert_eq!(bucket.status(quota, full).remaining, quota.burst());
        let taken = (0..=quota.burst()).take_while(|_| bucket.take(quota, now).is_ok()).count();
        prop_assert_eq!(u32::try_from(taken).unwrap(), left.remaining);
    }

    /// After a change of tier, the time until the bucket is full stays the same.
    #[test]
    fn a_change_of_tier_neither_fills_nor_empties_a_bucket(
        (before, after_it) in (quota(), quota()), takes in 0..60_u32,
    ) {
        let (bucket, now) = (Bucket::default(), MonoTime(SECOND));
        for _ in 0..takes {
            let _ = bucket.take(before, now);
        }
        let (old, new) = (bucket.status(before, now), bucket.status(after_it, now));
        prop_assert_eq!(old.reset, new.reset);
        let again = bucket.status(before, now);
        prop_assert_eq!(old, again);
    }

    #[test]
    fn no_window_grants_more_than_the_burst_and_the_refill(quota in quota(), pauses in pauses()) {
        let (bucket, mut now) = (Bucket::default(), MonoTime(0));
        let mut taken = Vec::new();
        for pause in pauses {
            now = MonoTime(now.0 + pause);
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
    let (bucket, now) = (Bucket::default(), MonoTime(5 * SECOND));
    for _ in 0..60 {
        bucket.take(standard, now).unwrap();
    }
    assert_eq!(bucket.status(standard, now).remaining, 60);
    assert_eq!(bucket.status(premium, now).remaining, 400);
    while bucket.take(standard, now).is_ok() {}
    assert!(bucket.take(premium, now).is_err(), "an empty bucket stays empty");
    assert!(bucket.take(premium, MonoTime(now.0 + 75_000_000)).is_ok(), "and fills at the new pace");
}

#[test]
fn a_fractional_interval_is_rounded_up() {
    let seven = Quota::per_minute(7, 7);
    assert!(seven.window() >= Duration::from_mins(1));
    assert_eq!(Quota::per_minute(0, 0), Quota::per_minute(1, 1));
    let (bucket, endless) = (Bucket::default(), Quota::per_minute(1, u32::MAX));
    assert!(bucket.take(endless, MonoTime(u64::MAX - 1)).is_ok(), "the end of the clock");
    assert!(endless.divided_by(1000).depth_ns() <= endless.depth_ns(), "governor can multiply what either is made of");
}

#[test]
fn a_bucket_is_exact_under_concurrency() {
    let (bucket, taken, quota) = (Bucket::default(), AtomicU32::new(0), Quota::per_minute(60, 10_000));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..2_500 {
                    taken.fetch_add(u32::from(bucket.take(quota, MonoTime(SECOND)).is_ok()), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(taken.into_inner(), 10_000);
}

#[test]
fn a_merge_during_takes_is_not_lost() {
    let (bucket, quota, last) = (Bucket::default(), Quota::per_minute(60_000, 100_000), MonoTime(90 * SECOND));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..2_500).for_each(|_| assert!(bucket.take(quota, MonoTime(SECOND)).is_ok())));
        }
        scope.spawn(|| (2..=90).for_each(|second| bucket.merge(MonoTime(second * SECOND))));
    });
    assert!(!bucket.is_full(MonoTime(last.0 - 1)));
    assert!(bucket.is_full(MonoTime(last.0 + 10 * SECOND)), "10,000 tokens of a millisecond each");
}
