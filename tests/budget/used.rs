//! Records of open windows: how a process writes them, and how the next process uses them.

use std::time::Duration;

use calgate::budget::used_windows::{ANY_PROCESS, UsedWindow, UsedWindows};
use calgate::ratelimit::fair_queue::{Flow, Priority};
use calgate::ratelimit::limiter::{BudgetLimiter, Decision};
use calgate::ratelimit::usage_headers::{LimitReading, LimitReadings, UpstreamOutcome};
use calgate::ratelimit::{Settings, ThrottleReason};
use calgate::time::MonoTime;

const WINDOW: Duration = Duration::from_secs(60);
const NOW: u64 = 1_796_000_000_000;

fn entry(budget: u128, name: u64, remaining: u32, ends: u64) -> UsedWindow {
    let (name, limit) = (Some(name), Some(120));
    UsedWindow { budget, operation: None, is_learned: false, name, limit, remaining, ends, process: ANY_PROCESS }
}

fn used(entries: &[UsedWindow]) -> UsedWindows {
    let mut used = UsedWindows::default();
    entries.iter().cloned().for_each(|entry| used.add(entry));
    used
}

fn limiter() -> BudgetLimiter {
    BudgetLimiter::new(Settings { limit: 120, window: WINDOW, replicas: 1, learn_limit: false }, 7)
}

fn goes(limiter: &mut BudgetLimiter, at: MonoTime) -> bool {
    let flow = Flow { key: 1, weight: 1, priority: Priority::Default };
    match limiter.admit(&flow, Duration::ZERO, at) {
        Decision::Admit(_) => true,
        Decision::Reject(_) => false,
        Decision::Queue(..) => panic!("it waits for nothing"),
    }
}

fn at(seconds: u64) -> MonoTime {
    MonoTime(seconds * 1_000_000_000)
}

#[test]
fn the_smaller_rest_of_a_window_and_the_later_window_hold() {
    let mut both = used(&[entry(1, 7, 30, NOW + 20_000), entry(2, 7, 5, NOW + 1000)]);
    let theirs = [entry(1, 7, 10, NOW + 21_000), entry(2, 7, 90, NOW + 50_000), entry(3, 7, 0, NOW - 1)];
    both.merge(used(&theirs), NOW);
    assert_eq!(both, used(&[entry(1, 7, 10, NOW + 21_000), entry(2, 7, 90, NOW + 50_000)]));
}

/// A process whose calendar is slow must not delete what others recorded. It must not use it either.
#[test]
fn an_entry_that_ends_too_late_to_be_true_stays_in_the_record_and_is_not_restored() {
    let late = entry(4, 7, 0, NOW + 181_000);
    let mut both = used(&[entry(1, 7, 30, NOW + 20_000)]);
    both.merge(used(std::slice::from_ref(&late)), NOW);
    assert_eq!(both, used(&[entry(1, 7, 30, NOW + 20_000), late]));
    assert_eq!(both.plausible(NOW, WINDOW), used(&[entry(1, 7, 30, NOW + 20_000)]));
}

#[test]
fn a_process_replaces_only_its_own_entries() {
    let by = |process, remaining| used(&[entry(1, 7, remaining, NOW)]).of_process(process);
    let mut both = by(1, 0);
    both.merge(by(2, 30), NOW - 1000);
    assert_eq!(both.clone().of_all(), used(&[entry(1, 7, 0, NOW)]), "the least holds for who starts");
    let mut replaced = by(1, 40);
    replaced.merge(both.of_others(1), NOW - 1000);
    assert_eq!(replaced.of_all(), used(&[entry(1, 7, 30, NOW)]));
}

#[test]
fn a_full_record_merges_only_windows_that_it_contains() {
    let mut full = UsedWindows::default();
    (0..2000).for_each(|budget| full.add(UsedWindow { process: 1, ..entry(budget, 7, 30, NOW) }));
    assert!(full.is_full());
    full.add(UsedWindow { process: 2, ..entry(5, 7, 10, NOW) });
    assert_eq!(full.take(5), [UsedWindow { process: 1, ..entry(5, 7, 10, NOW) }]);
    assert!(full.take(1999).is_empty() && !full.is_full());
}

#[test]
fn takes_the_entries_of_one_budget_only() {
    let own = [
        entry(u128::MAX, 1, 3, NOW),
        UsedWindow { operation: Some((u64::MAX, 3)), ..entry(u128::MAX, u64::MAX, 3, NOW) },
    ];
    let mut both = used(&own);
    both.add(entry(u128::MAX - 1, u64::MAX, 3, NOW));
    assert_eq!((both.take(u128::MAX), both.take(7)), (own.to_vec(), Vec::new()));
    assert_eq!(both, used(&[entry(u128::MAX - 1, u64::MAX, 3, NOW)]));
}

#[test]
fn reads_a_record_of_an_earlier_release() {
    let stored = br#"{"entries":[{"budget":"01","operation":[9,5],"name":7,"limit":5,"remaining":2,"ends":1000}]}"#;
    let expected = UsedWindow { operation: Some((9, 5)), is_learned: true, limit: Some(5), ..entry(1, 7, 2, 1000) };
    assert_eq!(UsedWindows::from_bytes(stored), used(&[expected]));
}

#[test]
fn reads_the_stored_form_and_ignores_anything_else() {
    let entries = [
        entry(u128::MAX, u64::MAX, 3, NOW),
        UsedWindow { operation: Some((u64::MAX, 3)), ..entry(1, 2, 3, NOW) },
        UsedWindow { name: None, limit: None, ..entry(1, 2, 0, NOW) },
    ];
    let whole = used(&entries);
    assert_eq!(UsedWindows::from_bytes(&whole.to_bytes()), whole);
    assert!(UsedWindows::from_bytes(b"{\"entries\":7}").is_empty() && UsedWindows::from_bytes(b"").is_empty());
}

#[test]
fn a_restored_window_holds_and_sends_no_burst_before_the_first_response() {
    let seen = |remaining| LimitReading { name: 1, limit: Some(120), remaining, reset: Duration::from_secs(30) };
    let mut exhausted = limiter();
    exhausted.restore_window(&seen(0), at(1));
    assert!(!goes(&mut exhausted, at(1)) && !goes(&mut exhausted, at(30)) && goes(&mut exhausted, at(32)));

    let mut fresh = limiter();
    fresh.restore_window(&seen(50), at(1));
    let flow = Flow { key: 1, weight: 1, priority: Priority::Default };
    let Decision::Admit(first) = fresh.admit(&flow, Duration::ZERO, at(1)) else { panic!("there is room") };
    assert!(!goes(&mut fresh, at(1)), "the other process may have sent more since");
    let told = LimitReadings { limits: std::iter::once(seen(20)).collect(), has_implausible: false };
    fresh.record_response(&first, UpstreamOutcome::Passed, &told, at(2));
    let burst = (0..100).filter(|_| goes(&mut fresh, at(2))).count();
    assert_eq!(burst, 20);
}

#[test]
fn a_block_outlives_the_process() {
    let mut limiter = limiter();
    limiter.restore_block(Duration::from_secs(40), at(1));
    assert!(!goes(&mut limiter, at(40)));
    assert_eq!(limiter.status(at(40)).held_by, Some(ThrottleReason::Refused));
    assert!(goes(&mut limiter, at(42)));
}
