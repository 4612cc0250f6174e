//! Back-off after a refusal of Cal.com: nothing, then one request, then a few, then all.

use std::time::Duration;

use calgate::ratelimit::Settings;
use calgate::ratelimit::backoff::BlockBackoff;
use calgate::ratelimit::fair_queue::{Flow, Priority};
use calgate::ratelimit::limiter::{BudgetLimiter, Decision};
use calgate::ratelimit::usage_headers::{LimitReadings, UpstreamOutcome};
use calgate::time::MonoTime;

fn at(seconds: u64) -> MonoTime {
    MonoTime(seconds * 1_000_000_000)
}

fn cap(breaker: &BlockBackoff, seconds: u64) -> Option<u32> {
    breaker.cap(at(seconds)).map(|(cap, _)| cap)
}

#[test]
fn nothing_is_sent_in_a_block_then_one_then_four_then_all() {
    let mut breaker = BlockBackoff::default();
    assert_eq!(cap(&breaker, 0), None);
    breaker.block(at(10), at(70));
    assert_eq!(breaker.cap(at(69)), Some((0, Some(at(70)))));
    assert_eq!(cap(&breaker, 70), Some(1));
    breaker.record_success(at(9));
    assert_eq!(cap(&breaker, 70), Some(1), "an answer to what was sent before says nothing");
    breaker.record_success(at(70));
    assert_eq!(cap(&breaker, 71), Some(4));
    (0..4).for_each(|_| breaker.record_success(at(71)));
    assert_eq!(cap(&breaker, 72), None);
}

#[test]
fn a_further_refusal_never_shortens_a_block() {
    let mut breaker = BlockBackoff::default();
    breaker.block(at(10), at(70));
    breaker.block(at(11), at(30));
    assert_eq!(cap(&breaker, 69), Some(0));
}

#[test]
fn the_edge_backoff_doubles_from_one_second_to_one_minute() {
    let mut breaker = BlockBackoff::default();
    let mut now = at(100);
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        breaker.block_edge(now, None);
        let until = now.after(Duration::from_secs(seconds));
        assert_eq!(breaker.cap(now), Some((0, Some(until))), "{seconds}");
        now = until;
    }
    (0..5).for_each(|_| breaker.record_success(now.after(Duration::from_secs(1))));
    breaker.block_edge(now, Some(Duration::from_secs(3600)));
    assert_eq!(breaker.cap(now), Some((0, Some(now.after(Duration::from_secs(60))))));
}

/// Creates a limiter that was refused at ten seconds and is not used again.
fn told_no(verdict: UpstreamOutcome) -> BudgetLimiter {
    let settings = Settings { limit: 120, window: Duration::from_secs(60), replicas: 1, learn_limit: false };
    let mut limiter = BudgetLimiter::new(settings, 7);
    let flow = Flow { key: 1, weight: 1, priority: Priority::Default };
    let Decision::Admit(flight) = limiter.admit(&flow, Duration::ZERO, at(9)) else { panic!("nothing holds it") };
    limiter.record_response(&flight, verdict, &LimitReadings::default(), at(10)).unwrap();
    limiter
}

#[test]
fn an_unused_budget_is_forgotten_one_window_after_a_block() {
    let second = Some(Duration::from_secs(1));
    for (verdict, blocked) in [
        (UpstreamOutcome::Edge { retry_after: None }, 1),
        (UpstreamOutcome::Edge { retry_after: Some(Duration::from_secs(40)) }, 40),
        // Longer by up to two seconds, so that gateways do not resume together.
        (UpstreamOutcome::Refused { retry_after: second }, 3),
    ] {
        let mut limiter = told_no(verdict);
        assert!(!limiter.is_unused(at(10 + blocked + 57)), "{verdict:?}");
        assert!(limiter.is_unused(at(10 + blocked + 60).after(Duration::from_millis(100))), "{verdict:?}");
    }
}
