//! Usage by other clients of the same credential, and how much of the limit is reserved for them.
//!
//! What Cal.com has counted beyond our own requests is theirs. A window that begins with an old count, as after a restart
//! or where Cal.com prolonged it, says nothing of them: only what comes on top after our first answer is counted.

use std::time::Duration;

use crate::time::MonoTime;

/// A window that is over counts as watched for so much of it at least: of a moment, chance tells more than others do.
const MIN_WATCHED_CLOSED: u32 = 4;

/// The same of one that is still open, which is also judged by those before.
const MIN_WATCHED_OPEN: u32 = 8;

/// A whole window: how long it is, and how many requests it has.
#[derive(Debug, Clone, Copy)]
pub struct WindowSize {
    /// How long it is.
    pub length: Duration,
    /// Requests in it.
    pub limit: u32,
}

/// Others' use of one window, and what is known of the windows before.
#[derive(Debug, Clone, Copy)]
pub struct ExternalUsage {
    /// What was left at our first answer of the window, and when that came.
    first: (u32, MonoTime),
    /// When the last of our requests was sent that were answered in the window: nothing is known of what others did since.
    told: MonoTime,
    /// Our own requests since the first.
    own: u32,
    /// Requests that were not ours.
    seen: u32,
    /// How many a window to expect, by the windows before.
    expected: u32,
}

impl ExternalUsage {
    /// Nothing is known but our first answer, to a request that was sent at `sent`.
    pub fn new(remaining: u32, sent: MonoTime, now: MonoTime) -> Self {
        Self { first: (remaining, now), told: sent, own: 0, seen: 0, expected: 0 }
    }

    /// The same in the next window. What was seen is expected again, as much more of it as answers left unwatched of the
    /// window; what was expected and not seen fades. Where this gateway was not `alone`, nothing was seen.
    #[must_use]
    pub fn next_window(
        self,
        remaining: u32,
        (sent, now): (MonoTime, MonoTime),
        whole: WindowSize,
        alone: bool,
    ) -> Self {
        let seen = self.seen.max(self.by_window(self.seen, whole, MIN_WATCHED_CLOSED));
        let faded = self.expected - self.expected.div_ceil(4);
        let expected = if alone { seen.max(faded) } else { self.expected };
        Self { expected, ..Self::new(remaining, sent, now) }
    }

    /// Watches anew from what was left last, and expects `expected`: what was counted so far was other gateways', too.
    #[must_use]
    pub fn reset(self, remaining: u32, expected: u32) -> Self {
        Self { first: (remaining, self.told), own: 0, seen: 0, expected, ..self }
    }

    /// A request of our own has been counted.
    pub fn count_own(&mut self) {
        self.own = self.own.saturating_add(1);
    }

    /// `remaining` are left while `in_flight` of our own may or may not be counted yet: so many at least were others'.
    pub fn observe(&mut self, remaining: u32, in_flight: u32, sent: MonoTime) {
        self.told = self.told.max(sent);
        let counted = self.first.0.saturating_sub(remaining);
        self.seen = self.seen.max(counted.saturating_sub(self.own.saturating_add(in_flight)));
    }

    /// Others' requests in this window, or what is expected of them.
    pub fn seen(&self) -> u32 {
        self.seen.max(self.expected)
    }

    /// What to expect by the windows before.
    pub fn expected(&self) -> u32 {
        self.expected
    }

    /// How much of the window to leave to others until its end, of what was left when it was last told: what they have used
    /// since and will use at the rate they have, and four standard deviations of what comes, as it comes at random. Where other
    /// gateways use the credential, too, nothing can be told from the counts, and only what is `suspected` a window is left.
    pub fn reserved_for_others(
        &self,
        now: MonoTime,
        end: MonoTime,
        whole: WindowSize,
        suspected: u32,
        alone: bool,
    ) -> u32 {
        let rate = if alone { suspected.max(self.rate(whole)) } else { suspected };
        if rate == 0 {
            return 0;
        }
        let to_come = prorate(rate, end.since(now), whole.length);
        // Of several gateways, all that is known is a guess, and a high one: it is not made finer.
        let (until_end, margin) = if alone {
            (prorate(rate, end.since(self.told), whole.length), to_come.saturating_mul(16).isqrt())
        } else {
            (to_come, 4 * to_come.isqrt())
        };
        until_end.saturating_add(margin).saturating_add(2)
    }

    /// Requests of others in a whole window. Where none are expected, two standard deviations more than were seen.
    fn rate(&self, whole: WindowSize) -> u32 {
        if self.seen == 0 {
            return self.expected; // Mostly nobody else is there, and this is asked with each request.
        }
        let unsure = if self.expected == 0 { self.seen.saturating_mul(4).isqrt() } else { 0 };
        self.seen().max(self.by_window(self.seen.saturating_add(unsure), whole, MIN_WATCHED_OPEN))
    }

    /// What `n` in the time that was watched are in a whole window: half of its requests at most, as a few that come at once
    /// are no sign of as many more.
    fn by_window(&self, n: u32, whole: WindowSize, least: u32) -> u32 {
        let watched = self.told.since(self.first.1).max(whole.length / least);
        prorate(n, whole.length, watched).min(whole.limit / 2)
    }
}

/// `n` by `part` of `whole`, rounded up.
pub(super) fn prorate(n: u32, part: Duration, whole: Duration) -> u32 {
    let n = part.as_millis().saturating_mul(u128::from(n)).div_ceil(whole.as_millis().max(1));
    u32::try_from(n).unwrap_or(u32::MAX)
}
