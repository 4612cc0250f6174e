//! Holds requests back until the first response of a new process: an earlier process may have used the window up.

use std::time::Duration;

use smallvec::SmallVec;

use crate::time::MonoTime;

/// Requests in flight at most before the first answer, where that is followed.
const MAX_IN_FLIGHT: u32 = 1;

/// How long the first answer is waited for until more requests may be in flight.
const FIRST_RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether the first answer has come, and what is sent before it.
#[derive(Debug, Default)]
pub struct FirstResponse {
    /// Whether it comes before a burst.
    pub is_followed: bool,
    /// Whether what is known was restored, and no answer of this process has told of a window yet.
    pub is_restored: bool,
    /// When the requests were sent that have no answer, before the first answer.
    unanswered: SmallVec<[MonoTime; 1]>,
}

impl FirstResponse {
    /// A request goes out before it.
    pub fn record_start(&mut self, now: MonoTime) {
        self.unanswered.push(now);
    }

    /// A request that was sent at `sent` is over.
    pub fn record_end(&mut self, sent: MonoTime) {
        if let Some(index) = self.unanswered.iter().position(|&at| at == sent) {
            self.unanswered.swap_remove(index);
        }
    }

    /// Requests that may be in flight before it, where `unknown` may be while nothing is known, and until when that stays so by
    /// itself.
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
