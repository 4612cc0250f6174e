//! Holds requests back until the first response of a new process, because an earlier process may have used the window up.

use std::time::Duration;

use smallvec::SmallVec;

use crate::time::MonoTime;

/// Maximum requests in flight before the first response, if the process awaits it.
const MAX_IN_FLIGHT: u32 = 1;

/// Time after which more requests may be in flight without a first response.
const FIRST_RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Requests that are sent before the first response.
#[derive(Debug, Default)]
pub struct FirstResponse {
    /// Whether the first response has to come before a burst.
    pub is_followed: bool,
    /// Whether windows were restored, and no response to this process has reported a window yet.
    pub is_restored: bool,
    /// Send times of requests without a response.
    unanswered: SmallVec<[MonoTime; 1]>,
}

impl FirstResponse {
    /// Records a request that is sent before the first response.
    pub fn record_start(&mut self, now: MonoTime) {
        self.unanswered.push(now);
    }

    /// Records the end of a request that was sent at `sent`.
    pub fn record_end(&mut self, sent: MonoTime) {
        if let Some(index) = self.unanswered.iter().position(|&at| at == sent) {
            self.unanswered.swap_remove(index);
        }
    }

    /// Returns the maximum requests in flight before the first response, and when that changes by itself. `unknown` is the
    /// maximum while no window is known.
    pub fn cap(&self, unknown: u32, now: MonoTime) -> (u32, Option<MonoTime>) {
        if !self.is_followed && !self.is_restored {
            return (unknown, None);
        }
        match self.unanswered.iter().min().map(|sent| sent.after(FIRST_RESPONSE_TIMEOUT)) {
            Some(late) if late <= now => (unknown, None),
            late => (MAX_IN_FLIGHT, late),
        }
    }
}
