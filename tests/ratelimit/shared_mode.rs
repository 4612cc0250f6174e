//! The limiter while a limit store decides.

use std::time::Duration;

use calgate::ratelimit::authority::CachedDenial;
use calgate::ratelimit::fair_queue::{Flow, Priority};
use calgate::ratelimit::limiter::{BudgetLimiter, Decision, InFlight, Wakeup};
use calgate::ratelimit::parts::Part;
use calgate::ratelimit::usage_headers::{LimitReadings, UpstreamOutcome};
use calgate::ratelimit::{Settings, ThrottleReason, Throttled};
use calgate::time::MonoTime;

const WINDOW: Duration = Duration::from_secs(60);

fn at(milliseconds: u64) -> MonoTime {
    MonoTime(milliseconds * 1_000_000)
}

fn flow(key: u64) -> Flow {
    Flow { key, weight: 1, priority: Priority::Default }
}

/// Creates a limiter of one of two gateways on a store.
fn limiter() -> BudgetLimiter {
    let mut limiter = BudgetLimiter::new(Settings { limit: 120, window: WINDOW, replicas: 1, learn_limit: false }, 7);
    limiter.enter_shared_mode(2);
    limiter
}

fn no(milliseconds: u64, now: MonoTime) -> CachedDenial {
    CachedDenial::new(ThrottleReason::Requests, Some(Duration::from_millis(milliseconds)), Duration::ZERO, now)
}

#[test]
fn an_expired_denial_admits_nothing_before_the_store_is_asked() {
    let mut limiter = limiter();
    assert!(matches!(limiter.poll_next(at(1000)), Wakeup::Idle), "nobody waits");
    limiter.apply_denial(no(50, at(1000)));
    for key in 0..3 {
        assert!(matches!(limiter.admit(&flow(key), WINDOW, at(1001)), Decision::Queue(_, ThrottleReason::Requests)));
    }
    let again = |limiter: &mut BudgetLimiter, now| match limiter.poll_next(now) {
        Wakeup::At(again) => again,
        said => panic!("the store has not been asked: {said:?}"),
    };
    assert_eq!((limiter.needs_store_decision(at(1049)), again(&mut limiter, at(1049))), (None, at(1050)));
    assert_eq!((limiter.needs_store_decision(at(1050)), again(&mut limiter, at(1050))), (Some(true), at(1050)));
    assert_eq!(again(&mut limiter, at(9000)), at(9000));
    assert!(matches!(limiter.next_admitted(at(9000)), Wakeup::Admit(..)), "it has been asked");
    again(&mut limiter, at(9000));
    limiter.leave_shared_mode(1, WINDOW, at(9000));
    assert!(matches!(limiter.poll_next(at(9000)), Wakeup::Admit(..)));
}

/// Returns the throttling of a request with this response at one second.
fn told_of(limiter: &mut BudgetLimiter, verdict: UpstreamOutcome) -> Throttled {
    let Decision::Admit(flight) = limiter.admit(&flow(1), Duration::ZERO, at(900)) else { panic!("nothing holds it") };
    limiter.record_response(&flight, verdict, &LimitReadings::default(), at(1000)).unwrap()
}

#[test]
fn a_block_is_reported_alike_with_and_without_the_store() {
    let seconds = Duration::from_secs;
    let alone = || {
        let mut limiter = limiter();
        limiter.leave_shared_mode(1, WINDOW, at(0));
        limiter
    };
    for (verdict, by, wait) in [
        (UpstreamOutcome::Edge { retry_after: None }, ThrottleReason::Edge, seconds(1)),
        (UpstreamOutcome::Edge { retry_after: Some(seconds(9)) }, ThrottleReason::Edge, seconds(9)),
        (UpstreamOutcome::Refused { retry_after: Some(seconds(7)) }, ThrottleReason::Refused, seconds(7)),
        (UpstreamOutcome::Refused { retry_after: None }, ThrottleReason::Refused, WINDOW),
    ] {
        let [by_store, alone] = [&mut limiter(), &mut alone()].map(|limiter| told_of(limiter, verdict));
        assert_eq!(by_store, alone);
        assert_eq!(by_store.by, by);
        let jitter = by_store.wait.checked_sub(wait).unwrap();
        assert!(jitter < seconds(2) && (by == ThrottleReason::Refused || jitter.is_zero()), "{by_store:?}");
    }
    let mut both = limiter();
    let [first, second] = [(); 2].map(|()| {
        let Decision::Admit(flight) = both.admit(&flow(1), Duration::ZERO, at(900)) else { panic!("nothing holds it") };
        flight
    });
    both.record_response(
        &first,
        UpstreamOutcome::Refused { retry_after: Some(seconds(7)) },
        &LimitReadings::default(),
        at(1000),
    )
    .unwrap();
    let held = both
        .record_response(&second, UpstreamOutcome::Edge { retry_after: None }, &LimitReadings::default(), at(2000))
        .unwrap();
    assert!(held.by == ThrottleReason::Refused && held.wait > seconds(6), "{held:?}");
}

fn asked_at_once(limiter: &mut BudgetLimiter, now: MonoTime) -> Vec<InFlight> {
    let ask = |_| match limiter.admit(&flow(1), Duration::ZERO, now) {
        Decision::Admit(flight) => Some(flight),
        Decision::Queue(ticket, _) => {
            limiter.cancel(ticket, &flow(1));
            None
        }
        Decision::Reject(_) => None,
    };
    (0..20).filter_map(ask).collect()
}

#[test]
fn without_the_store_a_gateway_sends_only_its_part_for_a_time() {
    const DEADLINE: Duration = Duration::from_secs(30);
    let mut limiter = limiter();
    limiter.update_part(Part { epoch: 7, requests: 2 }, at(0));
    limiter.leave_shared_mode(2, DEADLINE, at(1000));
    let flights = asked_at_once(&mut limiter, at(1000));
    assert_eq!(flights.len(), 2);
    for flight in flights {
        limiter.record_response(&flight, UpstreamOutcome::Passed, &LimitReadings::default(), at(1100));
    }
    assert!(asked_at_once(&mut limiter, at(60_000)).is_empty(), "both may still count");
    // A late response reports a smaller part.
    limiter.update_part(Part { epoch: 8, requests: 0 }, at(900));
    assert!(asked_at_once(&mut limiter, at(62_000)).is_empty(), "and it has none");
    limiter.update_part(Part { epoch: 9, requests: 5 }, at(900));
    assert!(asked_at_once(&mut limiter, at(92_000)).is_empty(), "without the store no part becomes larger");
    assert!(!asked_at_once(&mut limiter, at(92_600)).is_empty(), "from here on Cal.com's count is shared");
}

#[test]
fn a_gateway_that_was_alone_keeps_to_its_part_too() {
    let mut limiter = limiter();
    limiter.enter_shared_mode(1);
    limiter.update_part(Part { epoch: 7, requests: 2 }, at(0));
    limiter.leave_shared_mode(1, WINDOW, at(1000));
    assert_eq!(asked_at_once(&mut limiter, at(1000)).len(), 2);
}

#[test]
fn a_gateway_that_joins_again_has_no_part_at_first() {
    let mut limiter = limiter();
    limiter.update_part(Part { epoch: 7, requests: 2 }, at(0));
    limiter.give_up_part();
    limiter.update_part(Part { epoch: 7, requests: 2 }, at(1));
    limiter.leave_shared_mode(2, WINDOW, at(2));
    assert!(asked_at_once(&mut limiter, at(2)).is_empty());
}
