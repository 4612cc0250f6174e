//! Backoff after a refusal of Cal.com: sends nothing until the block ends, then one request, then a few, then all.
//!
//! There are two of these for each limit. One is for Cal.com's own 429, which should never come and blocks the credential
//! for a whole window (FACTS §2). The other is for the edge in front of Cal.com, which answers 429 or 403 with a page of
//! its own (FACTS §6): it says nothing about any window, so its waits begin at a second and double.

use std::time::Duration;

use crate::time::MonoTime;

/// Requests in flight at most, after the first good answer.
const PROBE_CAP: u32 = 4;

/// Good answers in a row after which all is as before.
const SUCCESSES_TO_RESUME: u32 = 4;

/// How long the edge is left alone after its first no, and at most.
const EDGE_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Keeps requests back after a no.
#[derive(Debug, Default)]
pub struct BlockBackoff {
    /// When the last no came and until when nothing is sent; `None` while all is well.
    blocked: Option<(MonoTime, MonoTime)>,
    /// Noes without a good answer between them.
    consecutive_refusals: u32,
    /// Good answers since.
    successes: u32,
}

impl BlockBackoff {
    /// Sends nothing until `until`. A later end that is set already stays.
    pub fn block(&mut self, now: MonoTime, until: MonoTime) {
        let until = self.blocked.map_or(until, |(_, set)| set.max(until));
        self.blocked = Some((now, until));
        self.consecutive_refusals = self.consecutive_refusals.saturating_add(1);
        self.successes = 0;
    }

    /// Leaves the edge alone: for as long as it asks, or twice as long as the last time, from one second to a minute.
    pub fn block_edge(&mut self, now: MonoTime, asked: Option<Duration>) {
        let (least, most) = EDGE_BACKOFF;
        let wait =
            asked.unwrap_or_else(|| least * 2_u32.saturating_pow(self.consecutive_refusals.min(6))).clamp(least, most);
        self.block(now, now.after(wait));
    }

    /// A good answer to a request that was sent at `sent`. One from before the no says nothing.
    pub fn record_success(&mut self, sent: MonoTime) {
        if self.blocked.is_some_and(|(no, _)| sent > no) {
            self.successes = self.successes.saturating_add(1);
            if self.successes > SUCCESSES_TO_RESUME {
                *self = Self::default();
            }
        }
    }

    /// Whether its last no is over, and was so `since` ago. One that is asked nothing after a no gets no good answer, either,
    /// and is not kept for that.
    pub fn has_passed(&self, since: Duration, now: MonoTime) -> bool {
        self.blocked.is_none_or(|(_, until)| until.after(since) <= now)
    }

    /// How many may be in flight, and until when that stays so by itself; `None` without bound.
    pub fn cap(&self, now: MonoTime) -> Option<(u32, Option<MonoTime>)> {
        let (_, until) = self.blocked?;
        if now < until {
            return Some((0, Some(until)));
        }
        Some((if self.successes == 0 { 1 } else { PROBE_CAP }, None))
    }
}
