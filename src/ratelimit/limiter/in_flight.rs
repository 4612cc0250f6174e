//! Requests in flight: counts each request once in the log, and once in the log of this gateway's reserved part.

use crate::ratelimit::limiter::BudgetLimiter;
use crate::time::MonoTime;

/// A request that has been let out. Each has to be ended by one of [`BudgetLimiter::record_response`], [`BudgetLimiter::mark_lost`] and
/// [`BudgetLimiter::mark_unsent`].
#[derive(Debug)]
#[must_use = "a request that is never ended counts for ever"]
pub struct InFlight {
    pub(crate) consumer: u64,
    pub(super) sent: MonoTime,
    pub(super) express: bool,
    /// Whether it is of this gateway's part.
    pub(super) of_part: bool,
    /// Whether it waits for the store's word.
    pub(crate) is_shared: bool,
    /// What a store knows it by.
    pub(crate) request: u64,
}

impl InFlight {
    /// When it was let out.
    pub fn sent(&self) -> MonoTime {
        self.sent
    }

    /// Whether it did not have to take turns when it was let out at once.
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

    /// A request was sent and nothing will be known of it: it has arrived by `deadline`, if at all.
    pub fn mark_lost(&mut self, flight: &InFlight, deadline: MonoTime) {
        self.complete(flight, deadline);
        self.upstream_windows.mark_lost();
    }

    /// A request was not sent after all.
    pub fn mark_unsent(&mut self, flight: &InFlight) {
        self.log.cancel();
        self.upstream_windows.record_end(flight.sent);
        if flight.of_part {
            self.part_log.cancel();
        }
        self.queue.record_expiry(flight.consumer);
    }

    /// A request has arrived by then, if it ever does.
    pub(super) fn complete(&mut self, flight: &InFlight, by: MonoTime) {
        let window = self.window();
        self.upstream_windows.record_end(flight.sent);
        self.log.complete(flight.consumer, by, window);
        if flight.of_part {
            self.part_log.complete(flight.consumer, by, window);
        }
    }
}
