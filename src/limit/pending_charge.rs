//! Charge of a bucket that several gateways share, which the store has not made yet.
//!
//! The local bucket is a copy. It merges the state of the shared bucket after each charge, and is never emptier than that. So the
//! shared bucket would refuse every charge that the copy refuses. Exception: new callers in a full table share one local bucket
//! while they are charged without the store.

use std::sync::Arc;
use std::time::Duration;

use crate::limit_store::Charge;
use crate::limit_store::{FailureMode, LimitStoreClient};
use crate::ratelimit::{Bucket, Exhausted, KeyedBuckets, Quota, RateLimitStatus};
use crate::refusal::Refusal;
use crate::time::MonoTime;

/// A local bucket.
#[derive(Debug, Clone, Copy)]
pub(super) enum BucketRef<'a> {
    Consumer(&'a Bucket),
    Keyed(&'a KeyedBuckets, u128),
}

/// A pending charge.
#[derive(Debug)]
pub struct PendingCharge<'a> {
    pub(super) store: &'a LimitStoreClient,
    pub(super) bucket: BucketRef<'a>,
    pub(super) quota: Quota,
    pub(super) now: MonoTime,
    pub(super) tag: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) replicas: u32,
}

impl BucketRef<'_> {
    pub(super) fn take(self, quota: Quota, now: MonoTime) -> Result<RateLimitStatus, Exhausted> {
        match self {
            Self::Consumer(bucket) => bucket.take(quota, now),
            Self::Keyed(buckets, key) => buckets.take(key, quota, now),
        }
    }

    pub(super) fn check(self, quota: Quota, now: MonoTime) -> Result<RateLimitStatus, Exhausted> {
        match self {
            Self::Consumer(bucket) => bucket.check(quota, now),
            Self::Keyed(buckets, key) => buckets.check(key, quota, now),
        }
    }

    pub(super) fn status(self, quota: Quota, now: MonoTime) -> RateLimitStatus {
        match self {
            Self::Consumer(bucket) => bucket.status(quota, now),
            Self::Keyed(buckets, key) => buckets.status(key, quota, now),
        }
    }

    fn merge(self, full_at: MonoTime, now: MonoTime) {
        match self {
            Self::Consumer(bucket) => bucket.merge(full_at),
            Self::Keyed(buckets, key) => buckets.merge(key, full_at, now),
        }
    }
}

impl PendingCharge<'_> {
    /// Returns the hash tag of the shared bucket's key.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Returns the shared bucket's key.
    pub fn key(&self) -> String {
        format!("calgate:{{{}}}:bucket:{}", self.tag, self.name)
    }

    /// Returns the size and refill rate of the bucket.
    pub fn quota(&self) -> Quota {
        self.quota
    }

    /// Returns the state of the local copy.
    pub fn status(&self) -> RateLimitStatus {
        self.bucket.status(self.quota, self.now)
    }

    /// Records that the store made the charge. The shared bucket is full after `ahead`.
    pub fn confirm(&self, ahead: Duration) {
        self.bucket.merge(self.now.after(ahead), self.now);
    }

    /// Records that the store refused the charge, and returns the refusal. The shared bucket is full after `ahead`.
    pub fn reject(&self, ahead: Duration) -> Refusal {
        self.confirm(ahead);
        Refusal::RateLimited { retry_after: self.quota.wait_for(ahead).unwrap_or_default() }
    }

    /// Makes the charge in a call of its own, if no budget is reserved in the same call of the store.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`], or those of [`PendingCharge::charge_locally`] if the store does not answer.
    pub async fn charge(&self) -> Result<(), Refusal> {
        if self.store.is_available() {
            let key = self.key();
            let charge = Charge { key: &key, quota: self.quota };
            match self.store.charge(charge).await {
                Ok(Ok(ahead)) => {
                    self.confirm(ahead);
                    return Ok(());
                }
                Ok(Err(ahead)) => return Err(self.reject(ahead)),
                Err(_) => {}
            }
        }
        self.charge_locally()
    }

    /// Charges the local copy, as `limit_store.on_loss` says, and reports the charge to the store later.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`], [`Refusal::LimitStoreUnavailable`].
    pub fn charge_locally(&self) -> Result<(), Refusal> {
        let (key, limited) = (self.key(), |retry_after| Refusal::RateLimited { retry_after });
        match self.store.failure_mode {
            FailureMode::Closed => return Err(Refusal::LimitStoreUnavailable),
            FailureMode::Local => {}
            FailureMode::Share => {
                self.bucket.check(self.quota, self.now).map_err(|empty| limited(empty.retry_after))?;
                let part = self.quota.divided_by(self.store.gateways().max(self.replicas));
                self.store.charge_share(&key, self.quota, part).map_err(limited)?;
            }
        }
        self.bucket.take(self.quota, self.now).map_err(|empty| limited(empty.retry_after))?;
        self.store.report_later(&key, self.quota);
        Ok(())
    }
}
