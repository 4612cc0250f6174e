//! A token that is still to be taken, from a bucket that other gateways take from, too.
//!
//! The bucket here is a copy: it is told how each charge left the shared one, and so is never emptier than that. What it
//! refuses, the shared one would refuse; but for newcomers to a full table, who share one here, for as long as they have just
//! taken from it without the store.

use std::sync::Arc;
use std::time::Duration;

use crate::ratelimit::{Bucket, Empty, KeyedBuckets, Quota, Standing};
use crate::refusal::Refusal;
use crate::sharing::scripts::Charge;
use crate::sharing::{OnLoss, SharedStore};
use crate::time::Tick;

/// A bucket of this gateway's.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whose<'a> {
    Own(&'a Bucket),
    Keyed(&'a KeyedBuckets, u128),
}

/// A token that is still to be taken.
#[derive(Debug)]
pub struct Due<'a> {
    pub(super) store: &'a SharedStore,
    pub(super) whose: Whose<'a>,
    pub(super) quota: Quota,
    pub(super) now: Tick,
    pub(super) tag: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) replicas: u32,
}

impl Whose<'_> {
    pub(super) fn take(self, quota: Quota, now: Tick) -> Result<Standing, Empty> {
        match self {
            Self::Own(bucket) => bucket.take(quota, now),
            Self::Keyed(buckets, key) => buckets.take(key, quota, now),
        }
    }

    pub(super) fn check(self, quota: Quota, now: Tick) -> Result<Standing, Empty> {
        match self {
            Self::Own(bucket) => bucket.check(quota, now),
            Self::Keyed(buckets, key) => buckets.check(key, quota, now),
        }
    }

    pub(super) fn standing(self, quota: Quota, now: Tick) -> Standing {
        match self {
            Self::Own(bucket) => bucket.standing(quota, now),
            Self::Keyed(buckets, key) => buckets.standing(key, quota, now),
        }
    }

    fn learn(self, full_at: Tick, now: Tick) {
        match self {
            Self::Own(bucket) => bucket.learn(full_at),
            Self::Keyed(buckets, key) => buckets.learn(key, full_at, now),
        }
    }
}

impl Due<'_> {
    /// The hash tag of the shared bucket's key.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The shared bucket's key.
    pub fn key(&self) -> String {
        format!("calgate:{{{}}}:bucket:{}", self.tag, self.name)
    }

    /// Its size and pace.
    pub fn quota(&self) -> Quota {
        self.quota
    }

    /// How the bucket stands, as far as this gateway has been told.
    pub fn standing(&self) -> Standing {
        self.whose.standing(self.quota, self.now)
    }

    /// The token was taken, and the bucket is full after `ahead`.
    pub fn taken(&self, ahead: Duration) {
        self.whose.learn(self.now.after(ahead), self.now);
    }

    /// There was none, and the bucket is full after `ahead`.
    pub fn refused(&self, ahead: Duration) -> Refusal {
        self.taken(ahead);
        Refusal::RateLimited { retry_after: self.quota.wait(ahead).unwrap_or_default() }
    }

    /// Takes it where no budget is asked along.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`], or what [`Due::take_alone`] says where the store does not answer.
    pub async fn take(&self) -> Result<(), Refusal> {
        if self.store.answers() {
            let key = self.key();
            let charge = Charge { key: &key, quota: self.quota };
            let scripts = self.store.scripts();
            match self.store.decide(|mut link| async move { scripts.charge(&mut link, charge, None).await }).await {
                Ok(Ok(ahead)) => {
                    self.taken(ahead);
                    return Ok(());
                }
                Ok(Err(ahead)) => return Err(self.refused(ahead)),
                Err(_) => {}
            }
        }
        self.take_alone()
    }

    /// Takes it from this gateway's own bucket, which is as it was last told of, as `limit_store.on_loss` says. The store is told
    /// of it later.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`], [`Refusal::StoreLost`].
    pub fn take_alone(&self) -> Result<(), Refusal> {
        let (key, limited) = (self.key(), |retry_after| Refusal::RateLimited { retry_after });
        match self.store.on_loss {
            OnLoss::Closed => return Err(Refusal::StoreLost),
            OnLoss::Local => {}
            OnLoss::Share => {
                self.whose.check(self.quota, self.now).map_err(|empty| limited(empty.retry_after))?;
                let part = self.quota.part(self.store.gateways().max(self.replicas));
                self.store.take_part(&key, self.quota, part).map_err(limited)?;
            }
        }
        self.whose.take(self.quota, self.now).map_err(|empty| limited(empty.retry_after))?;
        self.store.owe(&key, self.quota);
        Ok(())
    }
}
