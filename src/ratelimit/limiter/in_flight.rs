//! Requests in flight: counts each request once in the log, and once in the log of this gateway's reserved part.

use crate::ratelimit::limiter::Machine;
use crate::time::MonoTime;

/// A request that has been let out. Each has to be ended by one of [`Machine::answered`], [`Machine::lost`] and
/// [`Machine::unsent`].
#[derive(Debug)]
#[must_use = "a request that is never ended counts for ever"]
pub struct Flight {
    pub(crate) consumer: u64,
    pub(super) sent: MonoTime,
    pub(super) express: bool,
    /// Whether it is of this gateway's part.
    pub(super) of_part: bool,
    /// Whether it waits for the store's word.
    pub(crate) by_store: bool,
    /// What a store knows it by.
    pub(crate) request: u64,
}

impl Flight {
    /// When it was let out.
    pub fn sent(&self) -> MonoTime {
        self.sent
    }

    /// Whether it did not have to take turns when it was let out at once.
    pub fn is_express(&self) -> bool {
        self.express
    }
}

impl Machine {
    pub(super) fn release(&mut self, now: MonoTime) {
        while let Some(consumer) = self.log.release(now) {
            self.queue.released(consumer);
        }
        while self.part_log.release(now).is_some() {}
    }

    pub(super) fn let_out(&mut self, consumer: u64, now: MonoTime) -> Flight {
        self.log.sent();
        self.gate.sent(now);
        let of_part = !self.is_by_store() && self.held.limit(now).is_some();
        if of_part {
            self.part_log.sent();
        }
        Flight { consumer, sent: now, express: false, of_part, by_store: self.is_by_store(), request: 0 }
    }

    /// A request was sent and nothing will be known of it: it has arrived by `deadline`, if at all.
    pub fn lost(&mut self, flight: &Flight, deadline: MonoTime) {
        self.over(flight, deadline);
        self.gate.lost();
    }

    /// A request was not sent after all.
    pub fn unsent(&mut self, flight: &Flight) {
        self.log.unsent();
        self.gate.over(flight.sent);
        if flight.of_part {
            self.part_log.unsent();
        }
        self.queue.released(flight.consumer);
    }

    /// A request has arrived by then, if it ever does.
    pub(super) fn over(&mut self, flight: &Flight, by: MonoTime) {
        let window = self.window();
        self.gate.over(flight.sent);
        self.log.over(flight.consumer, by, window);
        if flight.of_part {
            self.part_log.over(flight.consumer, by, window);
        }
    }
}
