//! Backoff after a refusal of Cal.com: sends nothing until the block ends, then one request, then four, then all.
//!
//! Each limit has two of these. One is for Cal.com's own 429, which should never come and blocks the credential for a whole
//! window (FACTS §2). The other is for the edge in front of Cal.com, which answers 429 or 403 with its own page (FACTS §6). The
//! edge's refusal says nothing about a window, so its waits begin at one second and double.

use std::time::Duration;

use crate::time::MonoTime;

/// Maximum requests in flight after the first success.
const PROBE_CAP: u32 = 4;

/// Consecutive successes after which the backoff ends.
const SUCCESSES_TO_RESUME: u32 = 4;

/// Shortest and longest backoff after a refusal of the edge.
const EDGE_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Backoff state of one limit.
#[derive(Debug, Default)]
pub struct BlockBackoff {
    /// Time of the last refusal and end of the block; `None` if there is no backoff.
    blocked: Option<(MonoTime, MonoTime)>,
    /// Refusals without a success between them.
    consecutive_refusals: u32,
    /// Successes since the last refusal.
    successes: u32,
}

impl BlockBackoff {
    /// Sends nothing until `until`. A later end that is already set stays.
    pub fn block(&mut self, now: MonoTime, until: MonoTime) {
        let until = self.blocked.map_or(until, |(_, set)| set.max(until));
        self.blocked = Some((now, until));
        self.consecutive_refusals = self.consecutive_refusals.saturating_add(1);
        self.successes = 0;
    }

    /// Backs off from the edge for the time that it asks for. Without one, the backoff is twice the last one, from one second to
    /// one minute.
    pub fn block_edge(&mut self, now: MonoTime, asked: Option<Duration>) {
        let (least, most) = EDGE_BACKOFF;
        let wait =
            asked.unwrap_or_else(|| least * 2_u32.saturating_pow(self.consecutive_refusals.min(6))).clamp(least, most);
        self.block(now, now.after(wait));
    }

    /// Records the success of a request that was sent at `sent`. A request sent before the refusal proves nothing.
    pub fn record_success(&mut self, sent: MonoTime) {
        if self.blocked.is_some_and(|(no, _)| sent > no) {
            self.successes = self.successes.saturating_add(1);
            if self.successes > SUCCESSES_TO_RESUME {
                *self = Self::default();
            }
        }
    }

    /// Returns whether the last block ended at least `since` ago. Without requests there is no success, so an idle backoff must
    /// not last because of that.
    pub fn has_passed(&self, since: Duration, now: MonoTime) -> bool {
        self.blocked.is_none_or(|(_, until)| until.after(since) <= now)
    }

    /// Returns the maximum number of requests in flight, and when that changes by itself; `None` if there is no bound.
    pub fn cap(&self, now: MonoTime) -> Option<(u32, Option<MonoTime>)> {
        let (_, until) = self.blocked?;
        if now < until {
            return Some((0, Some(until)));
        }
        Some((if self.successes == 0 { 1 } else { PROBE_CAP }, None))
    }
}
