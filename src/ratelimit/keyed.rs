//! Buckets of callers without an entry in the configuration, in bounded memory.

use dashmap::DashMap;

use super::{Bucket, Exhausted, Quota, RateLimitStatus};
use crate::time::{MonoTime, OncePerSecond};

/// Buckets by key. Forgetting a full bucket changes nothing, because a new bucket is full too. If the table is full of buckets in
/// use, new keys share one overflow bucket: limits get tighter, memory stays bounded. It is unknown which keys used the overflow
/// bucket, so a new bucket starts with its state, which is mostly full.
#[derive(Debug)]
pub struct KeyedBuckets {
    buckets: DashMap<u128, Bucket>,
    capacity: usize,
    overflow: Bucket,
    pruned: OncePerSecond,
}

impl KeyedBuckets {
    /// Creates an empty table for about `capacity` buckets.
    pub fn new(capacity: usize) -> Self {
        Self { buckets: DashMap::new(), capacity, overflow: Bucket::default(), pruned: OncePerSecond::default() }
    }

    /// Takes one token from the bucket of `key`.
    ///
    /// # Errors
    /// [`Exhausted`] if there is none.
    pub fn take(&self, key: u128, quota: Quota, now: MonoTime) -> Result<RateLimitStatus, Exhausted> {
        if let Some(bucket) = self.buckets.get(&key) {
            return bucket.take(quota, now);
        }
        if self.is_at_capacity(now) {
            return self.overflow.take(quota, now);
        }
        self.buckets.entry(key).or_insert_with(|| self.overflow.fork()).take(quota, now)
    }

    /// Checks that there is a token, and takes none.
    ///
    /// # Errors
    /// [`Exhausted`] if there is none.
    pub fn check(&self, key: u128, quota: Quota, now: MonoTime) -> Result<RateLimitStatus, Exhausted> {
        self.with(key, |bucket| bucket.check(quota, now))
    }

    /// Raises the time at which the bucket of `key` is full. A full table drops the information.
    pub fn merge(&self, key: u128, full_at: MonoTime, now: MonoTime) {
        if let Some(bucket) = self.buckets.get(&key) {
            return bucket.merge(full_at);
        }
        if !self.is_at_capacity(now) {
            self.buckets.entry(key).or_insert_with(|| self.overflow.fork()).merge(full_at);
        }
    }

    /// Returns the state of the bucket of `key`.
    pub fn status(&self, key: u128, quota: Quota, now: MonoTime) -> RateLimitStatus {
        self.with(key, |bucket| bucket.status(quota, now))
    }

    /// Reads the bucket that `key` would take from.
    fn with<T>(&self, key: u128, look: impl FnOnce(&Bucket) -> T) -> T {
        match self.buckets.get(&key) {
            Some(bucket) => look(&bucket),
            None => look(&self.overflow),
        }
    }

    /// Returns whether new keys share the overflow bucket. Removes full buckets first, at most once per second.
    fn is_at_capacity(&self, now: MonoTime) -> bool {
        if self.buckets.len() >= self.capacity && self.pruned.try_start(now) {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        self.buckets.len() >= self.capacity
    }

    /// Returns the number of buckets.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Returns whether there is no bucket.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}
