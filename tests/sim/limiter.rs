//! Windows, blocks and prolonged windows of the simulated limiter, in simulated time.

use std::time::Duration;

use calgate::ratelimit::{Bucket, Quota};
use calgate::time::MonoTime;
use proptest::prelude::*;

use crate::cal_sim::limiter::{Limiter, NamedLimit, Standing};
use crate::properties::cases;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn named(name: &str, limit: u32) -> NamedLimit {
    NamedLimit { name: name.to_owned(), limit, window: seconds(60), block: seconds(60) }
}

fn limiter(limit: u32) -> Limiter {
    Limiter::new(vec![named("Default", limit)], false)
}

fn standing(remaining: u32, reset_seconds: u64) -> Standing {
    Standing { name: "Default".to_owned(), limit: 3, remaining, reset_seconds }
}

/// Hits the limiter at these seconds, and returns whether it refuses each hit.
fn refusals(limiter: &mut Limiter, times: &[u64]) -> Vec<bool> {
    times.iter().map(|time| limiter.hit(seconds(*time)).refused).collect()
}

/// Returns Poisson arrivals at this rate per second. They are the same in each run.
fn arrivals(per_second: f64) -> impl Iterator<Item = Duration> {
    let (mut random, mut now) = (0x9E37_79B9_7F4A_7C15_u64, Duration::ZERO);
    std::iter::repeat_with(move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let uniform = f64::from(u32::try_from(random >> 32).unwrap()) / f64::from(u32::MAX);
        now += Duration::from_secs_f64(-uniform.max(1e-9).ln() / per_second);
        now
    })
}

#[test]
fn a_window_starts_at_the_first_request_and_reports_its_state() {
    let mut limiter = limiter(3);
    assert_eq!(limiter.hit(seconds(1000)).standings, [standing(2, 60)]);
    assert_eq!(limiter.hit(seconds(1030)).standings, [standing(1, 30)]);
    assert_eq!(limiter.hit(Duration::from_millis(1_059_500)).standings, [standing(0, 1)]);
    assert_eq!(limiter.hit(seconds(1060)).standings, [standing(2, 60)], "the next window");
}

#[test]
fn the_request_that_exceeds_starts_a_block() {
    let mut limiter = limiter(3);
    assert_eq!(refusals(&mut limiter, &[0, 1, 2]), [false; 3]);
    let verdict = limiter.hit(seconds(50));
    assert!(verdict.refused);
    assert_eq!(verdict.standings, [standing(0, 60)], "a block says when it ends");
    assert_eq!(limiter.blocks(), 1);
    assert_eq!(refusals(&mut limiter, &[109, 110]), [true, false], "refused for a whole block, window or not");
}

#[test]
fn hits_in_a_block_still_count() {
    let mut limiter = limiter(3);
    assert_eq!(refusals(&mut limiter, &[0, 1, 2, 30]), [false, false, false, true], "blocked until 90");
    assert_eq!(refusals(&mut limiter, &[61, 70, 80]), [true; 3], "a window that began in the block, used up in it");
    assert_eq!(refusals(&mut limiter, &[91]), [true], "so that the first request after it is one too many");
    assert_eq!(limiter.blocks(), 2);
}

#[test]
fn several_limits_refuse_only_if_all_are_exceeded() {
    let mut limiter = Limiter::new(vec![named("Short", 1), named("Long", 2)], false);
    assert_eq!(refusals(&mut limiter, &[0, 1, 2]), [false, false, true]);
    let names: Vec<_> = limiter.hit(seconds(3)).standings.into_iter().map(|s| (s.name, s.remaining)).collect();
    assert_eq!(names, [("Short".to_owned(), 0), ("Long".to_owned(), 0)]);
}

#[test]
fn without_limits_nothing_is_refused() {
    let mut limiter = Limiter::new(Vec::new(), false);
    assert!((0..1000).all(|_| !limiter.hit(seconds(1)).refused));
}

#[test]
fn a_hit_in_the_millisecond_of_the_end_prolongs_the_window() {
    let after_the_end = |quirk, nanos_late| {
        let mut limiter = Limiter::new(vec![named("Default", 3)], quirk);
        limiter.hit(Duration::from_millis(5));
        limiter.hit(seconds(1));
        let end = Duration::from_millis(60_005) + Duration::from_nanos(nanos_late);
        limiter.hit(end).standings.remove(0)
    };
    assert_eq!(after_the_end(true, 0), standing(0, 60), "the old count, another window");
    assert_eq!(after_the_end(true, 999_999).remaining, 0);
    assert_eq!(after_the_end(true, 1_000_000), standing(2, 60), "a millisecond later it is over");
    assert_eq!(after_the_end(false, 0), standing(2, 60));
}

#[test]
fn the_quirk_is_as_rare_as_the_rate_says() {
    // 0.18 % of windows at 108 requests a minute.
    let mut limiter = Limiter::new(vec![named("Default", u32::MAX)], true);
    let (mut windows, mut prolonged) = (0_u32, 0_u32);
    let mut last = limiter.hit(Duration::ZERO).standings.remove(0);
    for now in arrivals(1.8) {
        if windows == 20_000 {
            break;
        }
        let standing = limiter.hit(now).standings.remove(0);
        if standing.reset_seconds == 60 && last.reset_seconds < 59 {
            windows += 1;
            prolonged += u32::from(standing.remaining < last.remaining);
        }
        last = standing;
    }
    assert!((20..60).contains(&prolonged), "{prolonged} of {windows} windows");
}

#[test]
fn a_token_bucket_of_the_same_number_causes_blocks() {
    // The bucket has 120 tokens and regains 2 a second. Clients send 360 requests a minute for ten hours.
    let (bucket, quota, mut limiter) = (Bucket::default(), Quota::per_minute(120, 120), limiter(120));
    let (mut served, mut refused) = (0_u32, 0_u32);
    for now in arrivals(6.0).take_while(|now| *now < seconds(36_000)) {
        if bucket.take(quota, MonoTime(u64::try_from(now.as_nanos()).unwrap())).is_ok() {
            *(if limiter.hit(now).refused { &mut refused } else { &mut served }) += 1;
        }
    }
    let (served, refused) = (served / 600, refused / 600);
    assert!((40..56).contains(&served) && (66..82).contains(&refused), "{served} and {refused} a minute");
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn no_window_serves_more_than_its_limit(
        limit in 1_u32..20,
        quirk: bool,
        gaps in prop::collection::vec(0_u64..20_000, 1..300),
    ) {
        let mut limiter = Limiter::new(vec![named("Default", limit)], quirk);
        let (mut now, mut served) = (Duration::ZERO, Vec::new());
        for gap in gaps {
            now += Duration::from_millis(gap);
            let verdict = limiter.hit(now);
            let standing = &verdict.standings[0];
            prop_assert!(standing.remaining < limit && standing.reset_seconds <= 60);
            if verdict.refused {
                prop_assert_eq!(standing.remaining, 0);
                served.clear();
            } else {
                served.push(now);
            }
        }
        // Windows touch, so any 60 s contain at most two limits.
        for (index, start) in served.iter().enumerate() {
            let within = served[index..].iter().take_while(|time| **time < *start + seconds(60)).count();
            prop_assert!(within <= 2 * limit as usize);
        }
    }

    #[test]
    fn at_most_the_limit_in_any_window_is_never_refused(
        limit in 1_usize..20,
        gaps in prop::collection::vec(0_u64..30_000, 1..300),
    ) {
        let mut limiter = Limiter::new(vec![named("Default", u32::try_from(limit).unwrap())], false);
        let mut sent: Vec<Duration> = Vec::new();
        let mut now = Duration::ZERO;
        for gap in gaps {
            now += Duration::from_millis(gap);
            if let Some(earliest) = sent.len().checked_sub(limit).map(|index| sent[index]) {
                now = now.max(earliest + seconds(60));
            }
            prop_assert!(!limiter.hit(now).refused);
            sent.push(now);
        }
    }
}
