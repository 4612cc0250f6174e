//! The token bucket: governor decides, and this module keeps the state.
//!
//! governor's algorithm is the generic cell rate algorithm (ITU-T I.371, annex A). A bucket's whole state is the
//! *theoretical arrival time*: the moment at which the bucket is full again. A token moves it one interval ahead. It may
//! not lie further ahead of now than the bucket is deep. One compare-and-swap per token makes it exact under any
//! concurrency.
//!
//! The quota is given at each call, so a change of tier neither fills nor empties a bucket: the time until it is full
//! again stays what it was, also where that is longer than the new tier's bucket is deep.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Quota, RateLimitStatus, decision};
use crate::time::{MonoTime, nanoseconds};

/// A token bucket. New, it is full.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Bucket {
    /// Takes one token.
    ///
    /// # Errors
    /// [`Exhausted`] if none is there.
    pub fn take(&self, quota: Quota, now: MonoTime) -> Result<RateLimitStatus, Exhausted> {
        let (ahead_ns, decision) = decision::take(&self.0, quota, now);
        verdict(quota, ahead_ns, decision)
    }

    /// Whether a token is there; none is taken.
    ///
    /// # Errors
    /// [`Exhausted`] if there is none.
    pub fn check(&self, quota: Quota, now: MonoTime) -> Result<RateLimitStatus, Exhausted> {
        let ahead_ns = self.0.load(Ordering::Relaxed).saturating_sub(now.0);
        verdict(quota, ahead_ns, decision::peek(ahead_ns, quota))
    }

    /// Another one that stands as this one does.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }

    /// It is not full before `full_at`: others have taken from it, too.
    pub fn merge(&self, full_at: MonoTime) {
        self.0.fetch_max(full_at.0, Ordering::Relaxed);
    }

    /// How it stands.
    pub fn status(&self, quota: Quota, now: MonoTime) -> RateLimitStatus {
        quota.status(self.0.load(Ordering::Relaxed).saturating_sub(now.0))
    }

    /// Whether it is full, and so the same as a new one.
    pub fn is_full(&self, now: MonoTime) -> bool {
        self.0.load(Ordering::Relaxed) <= now.0
    }
}

/// Why a take failed: how the bucket stands, and for how long it stays empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// The bucket as it is.
    pub status: RateLimitStatus,
    /// Until one token is there.
    pub retry_after: Duration,
}

/// A decision, with how the bucket stands.
fn verdict(quota: Quota, ahead_ns: u64, decision: Result<(), Duration>) -> Result<RateLimitStatus, Exhausted> {
    let status = quota.status(ahead_ns);
    decision.map(|()| status).map_err(|retry_after| Exhausted { status, retry_after })
}

impl Quota {
    /// How long a token has to be waited for, if at all, in a bucket that is full after `ahead`.
    pub fn wait_for(self, ahead: Duration) -> Option<Duration> {
        decision::peek(nanoseconds(ahead), self).err()
    }
}
