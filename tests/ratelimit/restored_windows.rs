//! Windows and blocks that an earlier process recorded.

use std::time::Duration;

use calgate::ratelimit::fair_queue::{Flow, Priority};
use calgate::ratelimit::limiter::{BudgetLimiter, Decision};
use calgate::ratelimit::usage_headers::{LimitReading, LimitReadings, UpstreamOutcome};
use calgate::ratelimit::{Settings, ThrottleReason};
use calgate::time::MonoTime;

const WINDOW: Duration = Duration::from_secs(60);

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
