//! Token bucket: governor decides, and this module keeps the state.
//!
//! governor uses the generic cell rate algorithm (ITU-T I.371, annex A). The whole state of a bucket is the *theoretical arrival
//! time*: the moment at which the bucket is full again. Each token moves it one interval ahead. It never lies further ahead of
//! now than the bucket is deep. One compare-and-swap per token makes the decision exact under any concurrency.
//!
//! Each call passes the quota, so a change of tier neither fills nor empties a bucket. The time until the bucket is full stays
//! the same, even if it is longer than the new tier's bucket is deep.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Quota, RateLimitStatus, decision};
use crate::time::{MonoTime, nanoseconds};

/// A token bucket. A new bucket is full.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Bucket {
    /// Takes one token.
    ///
    /// # Errors
    /// [`Exhausted`] if there is none.
    pub fn take(&self, quota: Quota, now: MonoTime) -> Result<RateLimitStatus, Exhausted> {
        let (ahead_ns, decision) = decision::take(&self.0, quota, now);
        verdict(quota, ahead_ns, decision)
    }

    /// Checks that there is a token, and takes none.
    ///
    /// # Errors
    /// [`Exhausted`] if there is none.
    pub fn check(&self, quota: Quota, now: MonoTime) -> Result<RateLimitStatus, Exhausted> {
        let ahead_ns = self.0.load(Ordering::Relaxed).saturating_sub(now.0);
        verdict(quota, ahead_ns, decision::peek(ahead_ns, quota))
    }

    /// Returns a new bucket with the same state.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }

    /// Raises the time at which the bucket is full to `full_at`, because other gateways took tokens too.
    pub fn merge(&self, full_at: MonoTime) {
        self.0.fetch_max(full_at.0, Ordering::Relaxed);
    }

    /// Returns the state that a client sees.
    pub fn status(&self, quota: Quota, now: MonoTime) -> RateLimitStatus {
        quota.status(self.0.load(Ordering::Relaxed).saturating_sub(now.0))
    }

    /// Returns whether the bucket is full, and so equal to a new one.
    pub fn is_full(&self, now: MonoTime) -> bool {
        self.0.load(Ordering::Relaxed) <= now.0
    }
}

/// Refusal of a token: the state of the bucket, and the wait for the next token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// State of the bucket.
    pub status: RateLimitStatus,
    /// Time until the next token.
    pub retry_after: Duration,
}

/// Combines a decision with the state of the bucket.
fn verdict(quota: Quota, ahead_ns: u64, decision: Result<(), Duration>) -> Result<RateLimitStatus, Exhausted> {
    let status = quota.status(ahead_ns);
    decision.map(|()| status).map_err(|retry_after| Exhausted { status, retry_after })
}

impl Quota {
    /// Returns the wait for a token of a bucket that is full after `ahead`; `None` if there is a token.
    pub fn wait_for(self, ahead: Duration) -> Option<Duration> {
        decision::peek(nanoseconds(ahead), self).err()
    }
}
