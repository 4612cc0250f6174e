//! Tokens that this gateway charged without the limit store, to be reported to it later.
//!
//! Beside the path: `limit` writes here what it takes alone, and the keeper tells the store as soon as that answers, before it
//! is asked again. Like a bucket, what is owed drains at the bucket's pace: what would have come back by itself is owed no more.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::ratelimit::{Bucket, Quota};
use crate::time::MonoTime;

/// Buckets that something is owed to, at most; beyond that, what is taken alone is not told.
const MOST: usize = 65_536;

/// What is owed, by the bucket's key.
#[derive(Debug, Default)]
pub struct Owed(Mutex<HashMap<String, Debt>>);

#[derive(Debug)]
struct Debt {
    quota: Quota,
    /// When it is owed no more.
    until: MonoTime,
    /// This gateway's part of the bucket, where it may take no more than that.
    part: Bucket,
}

/// So much is owed to one bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owing {
    /// The bucket's key.
    pub key: String,
    /// Its size and pace.
    pub quota: Quota,
    /// How much further ahead its being full lies.
    pub ahead: Duration,
}

impl Owed {
    /// Takes one token of this gateway's `part` of a bucket.
    ///
    /// # Errors
    /// How long none is there.
    pub fn take_part(&self, key: &str, quota: Quota, part: Quota, now: MonoTime) -> Result<(), Duration> {
        let mut debts = self.lock();
        match debt(&mut debts, key, quota, now) {
            Some(debt) => debt.part.take(part, now).map(drop).map_err(|empty| empty.retry_after),
            None => Ok(()),
        }
    }

    /// A token of a bucket has been handed out.
    pub fn add(&self, key: &str, quota: Quota, now: MonoTime) {
        let mut debts = self.lock();
        if let Some(debt) = debt(&mut debts, key, quota, now) {
            debt.quota = quota;
            debt.until = debt.until.max(now).after(Duration::from_nanos(quota.interval_ns()));
        }
    }

    /// All that is owed.
    pub fn all(&self, now: MonoTime) -> Vec<Owing> {
        let owing = |(key, debt): (&String, &Debt)| {
            let ahead = debt.until.since(now);
            (!ahead.is_zero()).then(|| Owing { key: key.clone(), quota: debt.quota, ahead })
        };
        self.lock().iter().filter_map(owing).collect()
    }

    /// The store has been told; what has been added meanwhile is still owed.
    pub fn told(&self, owing: &Owing) {
        if let Some(debt) = self.lock().get_mut(&owing.key) {
            debt.until = debt.until.before(owing.ahead);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Debt>> {
        self.0.lock()
    }
}

fn debt<'a>(debts: &'a mut HashMap<String, Debt>, key: &str, quota: Quota, now: MonoTime) -> Option<&'a mut Debt> {
    if !debts.contains_key(key) {
        if debts.len() >= MOST {
            debts.retain(|_, debt| debt.until > now || !debt.part.is_full(now));
        }
        if debts.len() >= MOST {
            return None;
        }
        debts.insert(key.to_owned(), Debt { quota, until: now, part: Bucket::default() });
    }
    debts.get_mut(key)
}
