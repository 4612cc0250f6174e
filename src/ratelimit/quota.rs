//! Size and refill rate of a bucket, and the state that a client sees.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::time::nanoseconds;

const MINUTE_NS: u64 = 60_000_000_000;

/// Size and refill rate of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota(pub(super) governor::Quota);

impl Quota {
    /// Creates a quota of `requests_per_minute` in the long run and `burst` at once. Zero counts as one. The interval is rounded
    /// up to whole nanoseconds, so that the rate is never exceeded.
    pub fn per_minute(requests_per_minute: u32, burst: u32) -> Self {
        Self::every(MINUTE_NS.div_ceil(u64::from(requests_per_minute.max(1))), burst)
    }

    /// Creates a quota of one token per `interval_ns`, which is at least one, and `burst` at once. governor multiplies the two
    /// without an overflow check, so a bucket is at most 584 years deep.
    fn every(interval_ns: u64, burst: u32) -> Self {
        let deepest = u32::try_from(u64::MAX / interval_ns.max(1)).unwrap_or(u32::MAX);
        let burst = NonZeroU32::new(burst.min(deepest)).unwrap_or(NonZeroU32::MIN);
        let one_by_one = governor::Quota::with_period(Duration::from_nanos(interval_ns));
        Self(one_by_one.unwrap_or(governor::Quota::per_minute(NonZeroU32::MIN)).allow_burst(burst))
    }

    /// Returns the tokens of a full bucket.
    pub fn burst(self) -> u32 {
        self.0.burst_size().get()
    }

    /// Returns the time in which an empty bucket becomes full.
    pub fn window(self) -> Duration {
        self.0.burst_size_replenished_in()
    }

    /// Returns the time in which one token comes back, in nanoseconds.
    pub fn interval_ns(self) -> u64 {
        nanoseconds(self.0.replenish_interval())
    }

    /// Returns the time in which all tokens come back, in nanoseconds.
    pub fn depth_ns(self) -> u64 {
        self.interval_ns().saturating_mul(u64::from(self.burst()))
    }

    /// Returns an equal part of the quota for each of `gateways` gateways.
    #[must_use]
    pub fn divided_by(self, gateways: u32) -> Self {
        let gateways = gateways.max(1);
        Self::every(self.interval_ns().saturating_mul(u64::from(gateways)), self.burst() / gateways)
    }

    /// Returns the state of a bucket that is full after `ahead_ns`.
    pub(super) fn status(self, ahead_ns: u64) -> RateLimitStatus {
        let free_ns = self.depth_ns().saturating_sub(ahead_ns);
        let remaining = u32::try_from(free_ns / self.interval_ns()).unwrap_or(u32::MAX);
        RateLimitStatus { limit: self.burst(), remaining, reset: Duration::from_nanos(ahead_ns), window: self.window() }
    }
}

/// State of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimitStatus {
    /// Tokens in a full bucket.
    pub limit: u32,
    /// Available tokens.
    pub remaining: u32,
    /// Time until the bucket is full.
    pub reset: Duration,
    /// Time in which an empty bucket becomes full.
    pub window: Duration,
}
