//! governor's decision about one token.
//!
//! Each decision builds a limiter on the stack: a quota, a [`StateStore`], and a [`Clock`] that stands at the arrival of the
//! request. So one bucket works with any quota, and no clock is read twice. governor counts from the first reading of its clock,
//! which is the arrival. The state that it receives is therefore the time from the arrival until the bucket is full.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::RateLimiter;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};

use super::Quota;
use crate::time::MonoTime;

/// Takes one token of the bucket that is full at `full_at`. Also returns the time until the bucket is full after that.
///
/// # Errors
/// The wait for a token, if there is none.
pub(super) fn take(full_at: &AtomicU64, quota: Quota, now: MonoTime) -> (u64, Result<(), Duration>) {
    let (state, decision) = decide(quota, Charge { full_at, now, ahead_ns: Cell::new(0) }, Arrival(now));
    (state.ahead_ns.get(), decision)
}

/// Checks that a bucket that is full after `ahead_ns` has a token, and takes none. The state counts from the arrival, so the time
/// of the arrival does not matter.
///
/// # Errors
/// The wait for a token, if there is none.
pub(super) fn peek(ahead_ns: u64, quota: Quota) -> Result<(), Duration> {
    decide(quota, Peek { ahead_ns }, Arrival::default()).1
}

/// Asks governor about one token of the bucket in `state`. The error is the wait for a token.
fn decide<S: StateStore<Key = NotKeyed>>(quota: Quota, state: S, arrival: Arrival) -> (S, Result<(), Duration>) {
    let limiter: RateLimiter<_, _, _, NoOpMiddleware<Nanos>> = RateLimiter::new(quota.0, state, arrival);
    let decision = limiter.check().map_err(|not_until| not_until.wait_time_from(limiter.clock().now()));
    (limiter.into_state_store(), decision)
}

/// Clock of one decision. It stands at the arrival of the request, which the caller has already read.
#[derive(Default)]
struct Arrival(MonoTime);

impl Clock for Arrival {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.0)
    }
}

/// State of a bucket for a decision that takes a token.
struct Charge<'a> {
    /// When the bucket is full, by the clock of the process.
    full_at: &'a AtomicU64,
    /// Arrival of the request.
    now: MonoTime,
    /// Time from the arrival until the bucket is full, after the decision.
    ahead_ns: Cell<u64>,
}

impl StateStore for Charge<'_> {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decision: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let before = full_at.saturating_sub(self.now.0);
            self.ahead_ns.set(before);
            let (taken, after) = decision(Some(Nanos::new(before)))?;
            let next = self.now.0.saturating_add(after.as_u64());
            match self.full_at.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    self.ahead_ns.set(after.as_u64());
                    return Ok(taken);
                }
                Err(current) => full_at = current,
            }
        }
    }
}

/// State of a bucket for a decision that takes no token.
struct Peek {
    ahead_ns: u64,
}

impl StateStore for Peek {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decision: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        decision(Some(Nanos::new(self.ahead_ns))).map(|(taken, _)| taken)
    }
}
