//! Other programs on the same credential: how much they use, and what is left to them so that they do not cause the block.
//!
//! What Cal.com has counted beyond our own requests is theirs. A window that begins with an old count, as after a restart
//! or where Cal.com prolonged it, says nothing of them: only what comes on top after our first answer is counted.

use std::time::Duration;

use crate::limit::Tick;

/// In a window that was watched for less than this part of it, that much is taken to have been watched.
const LEAST_WATCHED: u32 = 4;

/// The same while the window is still open: what was not seen in it may be known from the windows before.
const LEAST_ELAPSED: u32 = 8;

/// Others' use of one window, and what is known of the windows before.
#[derive(Debug, Clone, Copy)]
pub struct Foreign {
    /// What was left at our first answer of the window, and when that came.
    first: (u32, Tick),
    /// When our last answer of the window came: nothing is known of what others did since.
    told: Tick,
    /// Our own requests since the first.
    own: u32,
    /// Requests that were not ours.
    seen: u32,
    /// How many a window to expect, by the windows before.
    expected: u32,
}

impl Foreign {
    /// Nothing is known but our first answer.
    pub fn new(remaining: u32, now: Tick) -> Self {
        Self { first: (remaining, now), told: now, own: 0, seen: 0, expected: 0 }
    }

    /// The same in the next window. What was seen is expected again, as much more of it as answers left unwatched of the
    /// window; what was expected and not seen fades.
    #[must_use]
    pub fn next_window(self, remaining: u32, now: Tick, window: Duration) -> Self {
        let whole = self.by_window(self.seen, window, window / LEAST_WATCHED);
        Self { expected: whole.max(self.expected * 3 / 4), ..Self::new(remaining, now) }
    }

    /// A request of our own has been counted.
    pub fn own(&mut self) {
        self.own = self.own.saturating_add(1);
    }

    /// `remaining` are left while `in_flight` of our own may or may not be counted yet: so many at least were others'.
    pub fn note(&mut self, remaining: u32, in_flight: u32, now: Tick) {
        self.told = now;
        let counted = self.first.0.saturating_sub(remaining);
        self.seen = self.seen.max(counted.saturating_sub(self.own.saturating_add(in_flight)));
    }

    /// Others' requests in this window, or what is expected of them.
    pub fn seen(&self) -> u32 {
        self.seen.max(self.expected)
    }

    /// How much of the window to leave to others until its end, of what was left when it was last told: what they have used
    /// since and will use at the rate they have, and four standard deviations of what comes, as it comes at random. Where other
    /// gateways use the credential, too, nothing can be told from the counts, and only what is `suspected` a window is left.
    pub fn reserve(&self, now: Tick, end: Tick, window: Duration, suspected: u32, alone: bool) -> u32 {
        let rate = if alone { suspected.max(self.rate(window)) } else { suspected };
        if rate == 0 {
            return 0;
        }
        let to_come = part(rate, end.since(now), window);
        // What is suspected is a guess, and a high one: it is not made finer.
        let (until_end, margin) = if alone {
            (part(rate, end.since(self.told), window), to_come.saturating_mul(16).isqrt())
        } else {
            (to_come, 4 * to_come.isqrt())
        };
        until_end.saturating_add(margin).saturating_add(2)
    }

    /// Requests of others in a whole window. Where nothing is known of the windows before, two standard deviations more than
    /// were seen.
    fn rate(&self, window: Duration) -> u32 {
        let unsure = if self.expected == 0 { self.seen.saturating_mul(4).isqrt() } else { 0 };
        self.expected.max(self.by_window(self.seen.saturating_add(unsure), window, window / LEAST_ELAPSED))
    }

    /// What `n` in the time from our first to our last answer are in a whole window.
    fn by_window(&self, n: u32, window: Duration, least: Duration) -> u32 {
        part(n, window, self.told.since(self.first.1).max(least))
    }
}

/// `n` by `part` of `whole`, rounded up.
pub(super) fn part(n: u32, part: Duration, whole: Duration) -> u32 {
    let n = part.as_millis().saturating_mul(u128::from(n)).div_ceil(whole.as_millis().max(1));
    u32::try_from(n).unwrap_or(u32::MAX)
}
