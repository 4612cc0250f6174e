//! Size and pace of a bucket, and the state that a client is shown.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::time::nanoseconds;

const MINUTE_NS: u64 = 60_000_000_000;

/// A bucket's size and pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota(pub(super) governor::Quota);

impl Quota {
    /// `requests_per_minute` on the long run, `burst` at once; zero of either counts as one. An interval that is no
    /// whole number of nanoseconds is rounded up, so that the pace is never exceeded.
    pub fn per_minute(requests_per_minute: u32, burst: u32) -> Self {
        Self::every(MINUTE_NS.div_ceil(u64::from(requests_per_minute.max(1))), burst)
    }

    /// One token in each `interval_ns`, which is at least one, and `burst` at once. governor multiplies the two without a
    /// check, so a bucket is at most 584 years deep.
    fn every(interval_ns: u64, burst: u32) -> Self {
        let deepest = u32::try_from(u64::MAX / interval_ns.max(1)).unwrap_or(u32::MAX);
        let burst = NonZeroU32::new(burst.min(deepest)).unwrap_or(NonZeroU32::MIN);
        let one_by_one = governor::Quota::with_period(Duration::from_nanos(interval_ns));
        Self(one_by_one.unwrap_or(governor::Quota::per_minute(NonZeroU32::MIN)).allow_burst(burst))
    }

    /// Tokens in a full bucket.
    pub fn burst(self) -> u32 {
        self.0.burst_size().get()
    }

    /// Time in which an empty bucket is full again.
    pub fn window(self) -> Duration {
        self.0.burst_size_replenished_in()
    }

    /// Time in which one token comes back, in nanoseconds.
    pub fn interval_ns(self) -> u64 {
        nanoseconds(self.0.replenish_interval())
    }

    /// The same for all tokens of a full bucket.
    pub fn depth_ns(self) -> u64 {
        self.interval_ns().saturating_mul(u64::from(self.burst()))
    }

    /// An equal part of it for each of so many gateways.
    #[must_use]
    pub fn divided_by(self, gateways: u32) -> Self {
        let gateways = gateways.max(1);
        Self::every(self.interval_ns().saturating_mul(u64::from(gateways)), self.burst() / gateways)
    }

    /// How a bucket stands that is full after `ahead_ns`.
    pub(super) fn status(self, ahead_ns: u64) -> RateLimitStatus {
        let free_ns = self.depth_ns().saturating_sub(ahead_ns);
        let remaining = u32::try_from(free_ns / self.interval_ns()).unwrap_or(u32::MAX);
        RateLimitStatus { limit: self.burst(), remaining, reset: Duration::from_nanos(ahead_ns), window: self.window() }
    }
}

/// How a bucket stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimitStatus {
    /// Tokens in a full bucket.
    pub limit: u32,
    /// Tokens that are there now.
    pub remaining: u32,
    /// Until it is full.
    pub reset: Duration,
    /// Time in which an empty one is full again.
    pub window: Duration,
}
