//! Exports and restores the open windows of a limiter.

use std::time::Duration;

use crate::ratelimit::limiter::BudgetLimiter;
use crate::ratelimit::usage_headers::LimitReading;
use crate::time::MonoTime;

impl BudgetLimiter {
    /// Has the first answer come before a burst: a process before this one may have used the window up.
    pub fn await_first_response(&mut self) {
        self.upstream_windows.await_first_response();
    }

    /// N, as configured or as answers tell.
    pub fn limit(&self) -> u32 {
        self.effective_limit.get()
    }

    /// Cal.com's open windows: what is left of each when requests in flight have been counted, and until when.
    pub fn open_windows(&mut self, now: MonoTime) -> Vec<LimitReading> {
        self.expire(now);
        self.upstream_windows.open_windows(self.window_context(now))
    }

    /// How long nothing is sent because Cal.com's limiter refused a request.
    pub fn block_left(&self, now: MonoTime) -> Option<Duration> {
        self.refused.cap(now)?.1.map(|until| until.since(now))
    }

    /// A process before this one has recorded an open window.
    pub fn restore_window(&mut self, seen: &LimitReading, now: MonoTime) {
        self.upstream_windows.restore(seen, self.window_context(now));
    }

    /// A process before this one was refused, and the block is not over for `left`.
    pub fn restore_block(&mut self, left: Duration, now: MonoTime) {
        self.refused.block(now, now.after(left));
    }
}
