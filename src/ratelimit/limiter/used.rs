//! Exports and restores the open windows of a limiter.

use std::time::Duration;

use crate::ratelimit::limiter::BudgetLimiter;
use crate::ratelimit::usage_headers::LimitReading;
use crate::time::MonoTime;

impl BudgetLimiter {
    /// Sends no burst before the first response, because an earlier process may have used the window up.
    pub fn await_first_response(&mut self) {
        self.upstream_windows.await_first_response();
    }

    /// Returns N, as configured or as responses report.
    pub fn limit(&self) -> u32 {
        self.effective_limit.get()
    }

    /// Returns Cal.com's open windows: what is left of each after the requests in flight, and until when.
    pub fn open_windows(&mut self, now: MonoTime) -> Vec<LimitReading> {
        self.expire(now);
        self.upstream_windows.open_windows(self.window_context(now))
    }

    /// Returns the rest of the block after a refusal of Cal.com.
    pub fn block_left(&self, now: MonoTime) -> Option<Duration> {
        self.refused.cap(now)?.1.map(|until| until.since(now))
    }

    /// Restores an open window that an earlier process recorded.
    pub fn restore_window(&mut self, seen: &LimitReading, now: MonoTime) {
        self.upstream_windows.restore(seen, self.window_context(now));
    }

    /// Restores a block of an earlier process that lasts for `left`.
    pub fn restore_block(&mut self, left: Duration, now: MonoTime) {
        self.refused.block(now, now.after(left));
    }
}
