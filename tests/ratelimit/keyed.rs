//! Tables of buckets: their memory is bounded, and a full table makes no limit looser.

use std::collections::HashMap;

use calgate::ratelimit::{Bucket, KeyedBuckets, Quota};
use calgate::time::MonoTime;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::properties::cases;

const SECOND: u64 = 1_000_000_000;

fn quota() -> Quota {
    Quota::per_minute(60, 3)
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn below_capacity_each_key_has_a_bucket_of_its_own(requests in vec((0..20_u128, 0..SECOND), 1..300)) {
        let table = KeyedBuckets::new(100);
        let mut own: HashMap<u128, Bucket> = HashMap::new();
        let mut now = MonoTime(1);
        for (key, pause) in requests {
            now = MonoTime(now.0 + pause);
            let bucket = own.entry(key).or_default();
            prop_assert_eq!(table.status(key, quota(), now), bucket.status(quota(), now));
            prop_assert_eq!(table.take(key, quota(), now), bucket.take(quota(), now));
        }
    }

    #[test]
    fn the_table_is_bounded_and_no_key_gets_more_than_its_quota(
        capacity in 1..8_usize, requests in vec((0..40_u128, 0..2 * SECOND), 1..300),
    ) {
        let table = KeyedBuckets::new(capacity);
        let mut own: HashMap<u128, Bucket> = HashMap::new();
        let mut now = MonoTime(1);
        for (key, pause) in requests {
            now = MonoTime(now.0 + pause);
            let checked = (table.check(key, quota(), now).is_ok(), table.status(key, quota(), now).remaining > 0);
            let allowed = table.take(key, quota(), now).is_ok();
            prop_assert_eq!(checked, (allowed, allowed), "what is looked at is what is taken from");
            let alone = own.entry(key).or_default().take(quota(), now).is_ok();
            prop_assert!(alone || !allowed, "{} got more than a bucket of its own would give", key);
            prop_assert!(table.len() <= capacity);
        }
    }
}

#[test]
fn a_flood_of_keys_is_bounded_from_many_threads() {
    let table = KeyedBuckets::new(64);
    std::thread::scope(|scope| {
        for thread in 0..8_u128 {
            let table = &table;
            scope.spawn(move || {
                for n in 0..2_000 {
                    let _ = table.take(thread << 64 | n, quota(), MonoTime(SECOND));
                }
            });
        }
    });
    assert!(table.len() <= 64 + 8, "{}", table.len());
}

#[test]
fn a_key_that_used_the_overflow_bucket_does_not_start_full() {
    let table = KeyedBuckets::new(1);
    let take = |key, now: u64| table.take(key, quota(), MonoTime(now * SECOND)).map(|status| status.remaining);
    assert_eq!((take(1, 1), take(2, 1), take(2, 1), take(2, 1)), (Ok(2), Ok(2), Ok(1), Ok(0)));
    assert_eq!(take(2, 2), Ok(0), "there is room for a bucket of its own, in which there is what came back");
    assert!(take(2, 2).is_err());
}

#[test]
fn full_buckets_are_removed_for_new_keys() {
    let table = KeyedBuckets::new(2);
    let take = |key, now: u64| table.take(key, quota(), MonoTime(now * SECOND)).map(|status| status.remaining);
    assert_eq!((take(1, 1), take(2, 1)), (Ok(2), Ok(2)));
    assert_eq!((take(3, 1), take(4, 1)), (Ok(2), Ok(1)), "newcomers share one");
    assert_eq!(take(1, 1), Ok(1), "who is known keeps its own");
    assert_eq!(take(5, 10), Ok(2), "the others were full and are gone");
    assert_eq!(table.len(), 1);
}

#[test]
fn a_full_table_reports_the_overflow_bucket() {
    let table = KeyedBuckets::new(1);
    let at = |seconds: u64| MonoTime(seconds * SECOND);
    let remaining = |key, now| table.status(key, quota(), at(now)).remaining;
    let drain = |key, count: u32, quota, now| {
        for _ in 0..count {
            let _ = table.take(key, quota, at(now));
        }
    };
    drain(1, 3, quota(), 10);
    assert_eq!((remaining(2, 10), table.check(2, quota(), at(10)).is_ok()), (3, true));
    drain(2, 3, quota(), 10);
    assert_eq!((remaining(3, 10), table.check(3, quota(), at(10)).is_err()), (0, true));
    assert_eq!(remaining(3, 11), 1);
    assert_eq!((remaining(3, 13), table.check(3, quota(), at(13)).is_ok()), (3, true));
    let mut long = Vec::new();
    for (key, count) in [(4, 1), (5, 9)] {
        drain(key, count, Quota::per_minute(60, 9), 20);
        long.push(remaining(6, 20));
    }
    assert_eq!(long, [3, 0], "the one that was there is gone, and its place has been taken");
    assert_eq!(
        (remaining(6, 26), remaining(6, 29)),
        (0, 3),
        "there is room again, and a new one begins as the shared one stands"
    );
}
