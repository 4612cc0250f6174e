//! Record of used windows: merges, its stored form, and what a new process may trust.

use std::time::Duration;

use calgate::budget::used_windows::{ANY_PROCESS, UsedWindow, UsedWindows};

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

#[test]
fn the_smaller_rest_of_a_window_and_the_later_window_hold() {
    let mut both = used(&[entry(1, 7, 30, NOW + 20_000), entry(2, 7, 5, NOW + 1000)]);
    let theirs = [entry(1, 7, 10, NOW + 21_000), entry(2, 7, 90, NOW + 50_000), entry(3, 7, 0, NOW - 1)];
    both.merge(used(&theirs), NOW);
    assert_eq!(both, used(&[entry(1, 7, 10, NOW + 21_000), entry(2, 7, 90, NOW + 50_000)]));
}

/// A process with a slow calendar must neither delete such an entry nor use it.
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
