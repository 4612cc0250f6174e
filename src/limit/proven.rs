//! Credentials of callers that Cal.com has accepted, in bounded memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;

use crate::time::{MonoTime, OncePerSecond};

/// Time after which an unused credential may be forgotten to make room.
const KEEP_TIME: Duration = Duration::from_secs(3600);

/// Minimum time between two updates of one entry, so that frequent callers do not write to shared memory.
const UPDATE_INTERVAL: Duration = Duration::from_secs(60);

/// Hashes of credentials, and when each was last accepted. A table full of recent ones accepts no new one.
#[derive(Debug)]
pub struct ProvenKeys {
    accepted: DashMap<u128, AtomicU64>,
    capacity: usize,
    pruned: OncePerSecond,
}

impl ProvenKeys {
    /// Creates an empty table for about `capacity` credentials.
    pub fn new(capacity: usize) -> Self {
        Self { accepted: DashMap::new(), capacity, pruned: OncePerSecond::default() }
    }

    /// Records that Cal.com accepted a credential.
    pub fn record(&self, key: u128, now: MonoTime) {
        if let Some(last) = self.accepted.get(&key) {
            if now.since(MonoTime(last.load(Ordering::Relaxed))) >= UPDATE_INTERVAL {
                last.store(now.0, Ordering::Relaxed);
            }
            return;
        }
        if self.accepted.len() >= self.capacity && self.pruned.try_start(now) {
            self.accepted.retain(|_, last| now.since(MonoTime(*last.get_mut())) < KEEP_TIME);
        }
        if self.accepted.len() < self.capacity {
            self.accepted.insert(key, AtomicU64::new(now.0));
        }
    }

    /// Returns whether Cal.com has accepted a credential.
    pub fn contains(&self, key: u128) -> bool {
        self.accepted.contains_key(&key)
    }
}
