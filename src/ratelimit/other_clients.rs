//! Usage by other clients of the same credential, and the capacity that is reserved for them.
//!
//! Requests that Cal.com counts in addition to our own are those of other clients. A window may begin with an old count, after a
//! restart or because Cal.com prolonged it. So only the requests that are counted after our first response of the window are
//! attributed to others.

use std::time::Duration;

use crate::time::MonoTime;

/// A closed window counts as watched for at least a quarter of its length: a shorter time says little, because requests come at
/// random.
const MIN_WATCHED_CLOSED: u32 = 4;

/// The same for an open window, an eighth: the windows before it are known too.
const MIN_WATCHED_OPEN: u32 = 8;

/// Length and limit of a window.
#[derive(Debug, Clone, Copy)]
pub struct WindowSize {
    /// Length.
    pub length: Duration,
    /// Requests in it.
    pub limit: u32,
}

/// Usage of one window by other clients, and the usage expected from the windows before.
#[derive(Debug, Clone, Copy)]
pub struct ExternalUsage {
    /// Remaining requests at our first response of the window, and the time of that response.
    first: (u32, MonoTime),
    /// Send time of our last answered request. Usage by others since then is unknown.
    told: MonoTime,
    /// Our own requests since the first response.
    own: u32,
    /// Requests of other clients.
    seen: u32,
    /// Expected requests per window, from the windows before.
    expected: u32,
}

impl ExternalUsage {
    /// Starts with our first response, to a request that was sent at `sent`.
    pub fn new(remaining: u32, sent: MonoTime, now: MonoTime) -> Self {
        Self { first: (remaining, now), told: sent, own: 0, seen: 0, expected: 0 }
    }

    /// Starts the next window. The observed usage is expected again, extrapolated to the whole window. Expected usage that was
    /// not observed fades. A gateway that is not `alone` observed nothing.
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

    /// Restarts the observation from the last remaining count, and expects `expected`. The usage counted so far includes that of
    /// other gateways.
    #[must_use]
    pub fn reset(self, remaining: u32, expected: u32) -> Self {
        Self { first: (remaining, self.told), own: 0, seen: 0, expected, ..self }
    }

    /// Counts a request of our own.
    pub fn count_own(&mut self) {
        self.own = self.own.saturating_add(1);
    }

    /// Records that `remaining` requests are left. `in_flight` requests of our own may be counted or not, so the rest is a lower
    /// bound of the others' usage.
    pub fn observe(&mut self, remaining: u32, in_flight: u32, sent: MonoTime) {
        self.told = self.told.max(sent);
        let counted = self.first.0.saturating_sub(remaining);
        self.seen = self.seen.max(counted.saturating_sub(self.own.saturating_add(in_flight)));
    }

    /// Returns the requests of others in this window, or the expected ones if they are more.
    pub fn seen(&self) -> u32 {
        self.seen.max(self.expected)
    }

    /// Returns the usage expected from the windows before.
    pub fn expected(&self) -> u32 {
        self.expected
    }

    /// Returns how much of the last reported remaining count is reserved for others until the window ends: their usage since that
    /// report, their usage until the end at the same rate, and four standard deviations of the latter. With other gateways on the
    /// credential, the counts tell nothing, and only the `suspected` usage is reserved.
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
        // With several gateways, the usage is a high estimate, so it is not refined.
        let (until_end, margin) = if alone {
            (prorate(rate, end.since(self.told), whole.length), to_come.saturating_mul(16).isqrt())
        } else {
            (to_come, 4 * to_come.isqrt())
        };
        until_end.saturating_add(margin).saturating_add(2)
    }

    /// Returns the requests of others per window. If none are expected, it adds two standard deviations to the observed ones.
    fn rate(&self, whole: WindowSize) -> u32 {
        if self.seen == 0 {
            return self.expected; // Mostly nobody else is there, and this is asked with each request.
        }
        let unsure = if self.expected == 0 { self.seen.saturating_mul(4).isqrt() } else { 0 };
        self.seen().max(self.by_window(self.seen.saturating_add(unsure), whole, MIN_WATCHED_OPEN))
    }

    /// Extrapolates `n` from the observed time to a whole window. The result is at most half of the window's limit, because a
    /// short burst is no sign of many more.
    fn by_window(&self, n: u32, whole: WindowSize, least: u32) -> u32 {
        let watched = self.told.since(self.first.1).max(whole.length / least);
        prorate(n, whole.length, watched).min(whole.limit / 2)
    }
}

/// Returns `n · part / whole`, rounded up.
pub(super) fn prorate(n: u32, part: Duration, whole: Duration) -> u32 {
    let n = part.as_millis().saturating_mul(u128::from(n)).div_ceil(whole.as_millis().max(1));
    u32::try_from(n).unwrap_or(u32::MAX)
}
