//! The circuit breaker in front of the store. The tests set the time.

use std::time::Duration;

use calgate::limit_store::circuit_breaker::{BreakerState, CircuitBreaker};
use calgate::time::MonoTime;
use proptest::prelude::*;

use crate::properties::cases;

fn at(ms: u64) -> MonoTime {
    MonoTime(1_000_000_000).after(Duration::from_millis(ms))
}

/// Returns a breaker that closed at 0 ms.
fn closed() -> CircuitBreaker {
    let mut breaker = CircuitBreaker::new(at(0), 42);
    breaker.record_probe(true, at(0));
    breaker.close();
    assert_eq!(breaker.state(), BreakerState::Closed);
    breaker
}

fn probe(breaker: &CircuitBreaker) -> MonoTime {
    match breaker.state() {
        BreakerState::Open { probe } => probe,
        other => panic!("{other:?}"),
    }
}

#[test]
fn starts_open_with_a_probe_due_at_once() {
    assert_eq!(CircuitBreaker::new(at(7), 1).state(), BreakerState::Open { probe: at(7) });
}

#[test]
fn three_consecutive_failures_open_it() {
    let mut breaker = closed();
    assert!(!breaker.record_call(false, at(1)) && !breaker.record_call(false, at(2)));
    assert!(!breaker.record_call(true, at(3)));
    assert!(!breaker.record_call(false, at(4)) && !breaker.record_call(false, at(5)));
    assert!(breaker.record_call(false, at(6)));
    assert!(probe(&breaker) >= at(256), "{breaker:?}");
}

#[test]
fn more_than_one_in_five_within_a_second_opens_it() {
    // Two of ten calls fail, which is one in five and not more.
    let mut breaker = closed();
    let failing = |n: u64| n % 10 == 4 || n % 10 == 9;
    assert!((0..200).all(|n| !breaker.record_call(!failing(n), at(n * 4))));
    // Three of ten calls fail.
    let mut breaker = closed();
    let failing = |n: u64| [3, 6, 9].contains(&(n % 10));
    assert!((0..20).any(|n| breaker.record_call(!failing(n), at(n * 4))));
}

#[test]
fn the_backoff_of_probes_grows_to_a_second() {
    let mut breaker = closed();
    assert_eq!((0..3).filter(|_| breaker.record_call(false, at(0))).count(), 1);
    let mut now = at(0);
    for _ in 0..10 {
        let wait = probe(&breaker).since(now);
        assert!((Duration::from_millis(250)..=Duration::from_secs(1)).contains(&wait), "{wait:?}");
        now = probe(&breaker);
        breaker.record_probe(false, now);
    }
    assert!(probe(&breaker).since(now) >= Duration::from_millis(500));
    breaker.record_probe(true, now);
    assert_eq!(breaker.state(), BreakerState::Recovering { since: now });
    breaker.close();
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn failures_while_it_recovers_open_it_again() {
    let mut breaker = CircuitBreaker::new(at(0), 42);
    breaker.record_probe(true, at(0));
    assert!((0..3).any(|n| breaker.record_call(false, at(n))));
    breaker.close();
    assert!(matches!(breaker.state(), BreakerState::Open { .. }), "an open breaker closes only after a probe");
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn gateways_that_fail_together_probe_at_different_times(seeds in prop::collection::hash_set(any::<u64>(), 20)) {
        let probes: std::collections::HashSet<u64> = seeds
            .into_iter()
            .map(|seed| {
                let mut breaker = CircuitBreaker::new(at(0), seed);
                breaker.record_probe(false, at(0));
                breaker.record_probe(false, at(0));
                probe(&breaker).0
            })
            .collect();
        prop_assert!(probes.len() > 10, "{probes:?}");
    }
}

#[test]
fn calls_that_began_before_it_opened_do_not_delay_the_probe() {
    let mut breaker = closed();
    assert!((0..3).any(|_| breaker.record_call(false, at(0))));
    let open = breaker.state();
    for _ in 0..20 {
        assert!(!breaker.record_call(false, at(100)));
    }
    assert_eq!(breaker.state(), open);
}
