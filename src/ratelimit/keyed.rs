//! Buckets of callers that no configuration lists, in bounded memory.

use dashmap::DashMap;

use super::{Bucket, Exhausted, Quota, RateLimitStatus};
use crate::time::{MonoTime, OncePerSecond};

/// Buckets by key. A bucket that is full again is the same as none, so forgetting it changes nothing. Where the table is
/// full of buckets in use, newcomers share one: limits get tighter, memory stays bounded. Who took from that is not known, so a
/// new bucket begins as the shared one stands, which mostly is full.
#[derive(Debug)]
pub struct KeyedBuckets {
    buckets: DashMap<u128, Bucket>,
    capacity: usize,
    overflow: Bucket,
    pruned: OncePerSecond,
}

impl KeyedBuckets {
    /// An empty table of at most about `capacity` buckets.
    pub fn new(capacity: usize) -> Self {
        Self { buckets: DashMap::new(), capacity, overflow: Bucket::default(), pruned: OncePerSecond::default() }
    }

    /// Takes one token from the bucket of `key`.
    ///
    /// # Errors
    /// [`Exhausted`] if none is there.
    pub fn take(&self, key: u128, quota: Quota, now: MonoTime) -> Result<RateLimitStatus, Exhausted> {
        if let Some(bucket) = self.buckets.get(&key) {
            return bucket.take(quota, now);
        }
        if self.is_at_capacity(now) {
            return self.overflow.take(quota, now);
        }
        self.buckets.entry(key).or_insert_with(|| self.overflow.fork()).take(quota, now)
    }

    /// Whether a token is there; none is taken.
    ///
    /// # Errors
    /// [`Exhausted`] if there is none.
    pub fn check(&self, key: u128, quota: Quota, now: MonoTime) -> Result<RateLimitStatus, Exhausted> {
        self.with(key, |bucket| bucket.check(quota, now))
    }

    /// The bucket of `key` is not full before `full_at`. Where the table is full, that is not remembered.
    pub fn merge(&self, key: u128, full_at: MonoTime, now: MonoTime) {
        if let Some(bucket) = self.buckets.get(&key) {
            return bucket.merge(full_at);
        }
        if !self.is_at_capacity(now) {
            self.buckets.entry(key).or_insert_with(|| self.overflow.fork()).merge(full_at);
        }
    }

    /// How the bucket of `key` stands.
    pub fn status(&self, key: u128, quota: Quota, now: MonoTime) -> RateLimitStatus {
        self.with(key, |bucket| bucket.status(quota, now))
    }

    /// Looks at the bucket that `key` would take from.
    fn with<T>(&self, key: u128, look: impl FnOnce(&Bucket) -> T) -> T {
        match self.buckets.get(&key) {
            Some(bucket) => look(&bucket),
            None => look(&self.overflow),
        }
    }

    /// Whether newcomers share a bucket. Those that are full are forgotten before, now and then.
    fn is_at_capacity(&self, now: MonoTime) -> bool {
        if self.buckets.len() >= self.capacity && self.pruned.try_start(now) {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        self.buckets.len() >= self.capacity
    }

    /// How many buckets it holds.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}
