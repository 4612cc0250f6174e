//! What is recorded of windows, and what a new process makes of it.

use std::time::Duration;

use calgate::budget::headers::{Seen, Told, Verdict};
use calgate::budget::machine::{Asked, Machine};
use calgate::budget::queue::{Asker, Priority};
use calgate::budget::used::{Entry, Used};
use calgate::budget::{Hold, Settings};
use calgate::limit::Tick;

const WINDOW: Duration = Duration::from_secs(60);
const NOW: u64 = 1_796_000_000_000;

fn entry(budget: u128, name: u64, remaining: u32, ends: u64) -> Entry {
    Entry { budget, operation: None, name: Some(name), limit: Some(120), remaining, ends }
}

fn used(entries: &[Entry]) -> Used {
    let mut used = Used::default();
    entries.iter().cloned().for_each(|entry| used.add(entry));
    used
}

fn machine() -> Machine {
    Machine::new(Settings { limit: 120, window: WINDOW, replicas: 1, learn_limit: false }, 7)
}

fn goes(machine: &mut Machine, at: Tick) -> bool {
    let asker = Asker { key: 1, weight: 1, priority: Priority::Default };
    match machine.ask(&asker, Duration::ZERO, at) {
        Asked::Go(_) => true,
        Asked::Refuse(_) => false,
        Asked::Wait(..) => panic!("it waits for nothing"),
    }
}

fn at(seconds: u64) -> Tick {
    Tick(seconds * 1_000_000_000)
}

#[test]
fn of_two_processes_the_least_that_is_left_of_a_window_holds_and_the_later_window() {
    let mut both = used(&[entry(1, 7, 30, NOW + 20_000), entry(2, 7, 5, NOW + 1000)]);
    let theirs = [entry(1, 7, 10, NOW + 21_000), entry(2, 7, 90, NOW + 50_000), entry(3, 7, 0, NOW - 1)];
    both.merge(used(&theirs), NOW, WINDOW);
    both.merge(used(&[entry(4, 7, 0, NOW + 181_000)]), NOW, WINDOW);
    assert_eq!(both, used(&[entry(1, 7, 10, NOW + 21_000), entry(2, 7, 90, NOW + 50_000)]));
}

#[test]
fn what_is_stored_is_read_again_and_what_is_something_else_is_nothing() {
    let entries = [
        entry(u128::MAX, u64::MAX, 3, NOW),
        Entry { operation: Some((u64::MAX, 3)), ..entry(1, 2, 3, NOW) },
        Entry { name: None, limit: None, ..entry(1, 2, 0, NOW) },
    ];
    let whole = used(&entries);
    assert_eq!(Used::from_bytes(&whole.to_bytes()), whole);
    assert!(Used::from_bytes(b"{\"entries\":7}").is_empty() && Used::from_bytes(b"").is_empty());
}

#[test]
fn a_restored_window_holds_what_it_says_and_the_first_answer_comes_before_a_burst() {
    let seen = |remaining| Seen { name: 1, limit: Some(120), remaining, reset: Duration::from_secs(30) };
    let mut exhausted = machine();
    exhausted.restore_window(&seen(0), at(1));
    assert!(!goes(&mut exhausted, at(1)) && !goes(&mut exhausted, at(30)) && goes(&mut exhausted, at(32)));

    let mut fresh = machine();
    fresh.restore_window(&seen(50), at(1));
    let asker = Asker { key: 1, weight: 1, priority: Priority::Default };
    let Asked::Go(first) = fresh.ask(&asker, Duration::ZERO, at(1)) else { panic!("there is room") };
    assert!(!goes(&mut fresh, at(1)), "the other process may have sent more since");
    let told = Told { limits: std::iter::once(seen(20)).collect(), absurd: false };
    fresh.answered(&first, Verdict::Passed, &told, at(2));
    let burst = (0..100).filter(|_| goes(&mut fresh, at(2))).count();
    assert_eq!(burst, 20);
}

#[test]
fn a_block_outlives_the_process() {
    let mut machine = machine();
    machine.restore_block(Duration::from_secs(40), at(1));
    assert!(!goes(&mut machine, at(40)));
    assert_eq!(machine.standing(at(40)).held_by, Some(Hold::Refused));
    assert!(goes(&mut machine, at(42)));
}
