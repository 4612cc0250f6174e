//! Other programs on the same credential: how much they use, and what is left to them so that they do not cause the block.
//!
//! What Cal.com has counted beyond our own requests is theirs. A window that begins with an old count, as after a restart
//! or where Cal.com prolonged it, says nothing of them: only what comes on top after our first answer is counted.

use std::time::Duration;

use crate::limit::Tick;

/// Others' use of one window, and what is known of the windows before.
#[derive(Debug, Clone, Copy)]
pub struct Foreign {
    /// What was left at our first answer of the window, and when that came.
    first: (u32, Tick),
    /// Our own requests since.
    own: u32,
    /// Requests that were not ours.
    seen: u32,
    /// How many a window to expect, by the windows before.
    expected: u32,
}

impl Foreign {
    /// Nothing is known but our first answer.
    pub fn new(remaining: u32, now: Tick) -> Self {
        Self { first: (remaining, now), own: 0, seen: 0, expected: 0 }
    }

    /// The same in the next window. What was seen is expected again; what was expected and not seen fades.
    #[must_use]
    pub fn next_window(self, remaining: u32, now: Tick) -> Self {
        Self { expected: self.seen.max(self.expected * 3 / 4), ..Self::new(remaining, now) }
    }

    /// A request of our own has been counted.
    pub fn own(&mut self) {
        self.own = self.own.saturating_add(1);
    }

    /// `remaining` are left while `in_flight` of our own may or may not be counted yet: so many at least were others'.
    pub fn note(&mut self, remaining: u32, in_flight: u32) {
        let counted = self.first.0.saturating_sub(remaining);
        self.seen = self.seen.max(counted.saturating_sub(self.own.saturating_add(in_flight)));
    }

    /// Others' requests in this window, or what is expected of them.
    pub fn seen(&self) -> u32 {
        self.seen.max(self.expected)
    }

    /// How much of the window to leave to others until its end: what they will use at the rate they have, and four
    /// standard deviations of requests that come at random. Where other gateways use the credential, too, nothing can be
    /// told from the counts, and only what is `suspected` a window is left.
    pub fn reserve(&self, now: Tick, end: Tick, window: Duration, suspected: u32, alone: bool) -> u32 {
        let mut rate = suspected;
        if alone && self.seen > 0 {
            let elapsed = now.since(self.first.1).max(window / 8);
            rate = rate.max(part(self.seen, window, elapsed));
        }
        if alone {
            rate = rate.max(self.expected);
        }
        if rate == 0 {
            return 0;
        }
        let to_come = part(rate, end.since(now), window);
        to_come.saturating_add(4 * to_come.isqrt()).saturating_add(2)
    }
}

/// `n` by `part` of `whole`, rounded up.
pub(super) fn part(n: u32, part: Duration, whole: Duration) -> u32 {
    let n = part.as_millis().saturating_mul(u128::from(n)).div_ceil(whole.as_millis().max(1));
    u32::try_from(n).unwrap_or(u32::MAX)
}
