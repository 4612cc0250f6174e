//! Requests in flight: counts each request once in the log, and once in the log of this gateway's reserved part.

use crate::ratelimit::limiter::BudgetLimiter;
use crate::time::MonoTime;

/// An admitted request. The caller ends each one by [`BudgetLimiter::record_response`], [`BudgetLimiter::mark_lost`] or
/// [`BudgetLimiter::mark_unsent`].
#[derive(Debug)]
#[must_use = "a request that is never ended counts for ever"]
pub struct InFlight {
    pub(crate) consumer: u64,
    pub(super) sent: MonoTime,
    pub(super) express: bool,
    /// Whether it uses this gateway's reserved part.
    pub(super) of_part: bool,
    /// Whether the store has to admit it too.
    pub(crate) is_shared: bool,
    /// Its identifier in the store; 0 if it has none.
    pub(crate) request: u64,
}

impl InFlight {
    /// Returns when it was admitted.
    pub fn sent(&self) -> MonoTime {
        self.sent
    }

    /// Returns whether it was admitted by the express lane without a wait.
    pub fn is_express(&self) -> bool {
        self.express
    }
}

impl BudgetLimiter {
    pub(super) fn expire(&mut self, now: MonoTime) {
        while let Some(consumer) = self.log.pop_expired(now) {
            self.queue.record_expiry(consumer);
        }
        while self.part_log.pop_expired(now).is_some() {}
    }

    pub(super) fn start(&mut self, consumer: u64, now: MonoTime) -> InFlight {
        self.log.start();
        self.upstream_windows.record_start(now);
        let of_part = !self.is_shared() && self.part_lease.limit(now).is_some();
        if of_part {
            self.part_log.start();
        }
        InFlight { consumer, sent: now, express: false, of_part, is_shared: self.is_shared(), request: 0 }
    }

    /// Records that a request was sent and its outcome stays unknown. It has arrived by `deadline`, if at all.
    pub fn mark_lost(&mut self, flight: &InFlight, deadline: MonoTime) {
        self.complete(flight, deadline);
        self.upstream_windows.mark_lost();
    }

    /// Records that a request was not sent.
    pub fn mark_unsent(&mut self, flight: &InFlight) {
        self.log.cancel();
        self.upstream_windows.record_end(flight.sent);
        if flight.of_part {
            self.part_log.cancel();
        }
        self.queue.record_expiry(flight.consumer);
    }

    /// Completes a request that has arrived at `by` at the latest.
    pub(super) fn complete(&mut self, flight: &InFlight, by: MonoTime) {
        let window = self.window();
        self.upstream_windows.record_end(flight.sent);
        self.log.complete(flight.consumer, by, window);
        if flight.of_part {
            self.part_log.complete(flight.consumer, by, window);
        }
    }
}
