//! Backlog: tokens that this gateway charged without the limit store, to be reported to it later.
//!
//! The stage `limit` records each charge. The supervisor reports them as soon as the store replies, before the circuit
//! breaker closes. An entry shrinks at the pace of its bucket, because the bucket would have refilled meanwhile.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::ratelimit::{Bucket, Quota};
use crate::time::MonoTime;

/// Maximum number of buckets in the backlog. Charges of further buckets are not reported.
const MAX_ENTRIES: usize = 65_536;

/// Unreported charges by the key of their bucket.
#[derive(Debug, Default)]
pub struct Backlog(Mutex<HashMap<String, Unreported>>);

#[derive(Debug)]
struct Unreported {
    quota: Quota,
    /// Time at which the bucket has refilled what was charged.
    until: MonoTime,
    /// This gateway's part of the bucket, if `on_loss` is `share`.
    part: Bucket,
}

/// Charges of one bucket that the store does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageReport {
    /// Key of the bucket.
    pub key: String,
    /// Size and pace of the bucket.
    pub quota: Quota,
    /// Time by which the charges put off the moment at which the bucket is full.
    pub ahead: Duration,
}

impl Backlog {
    /// Charges one token of this gateway's `part` of a bucket.
    ///
    /// # Errors
    /// Time until that part has a token.
    pub fn charge_share(&self, key: &str, quota: Quota, part: Quota, now: MonoTime) -> Result<(), Duration> {
        let mut entries = self.lock();
        match entry(&mut entries, key, quota, now) {
            Some(entry) => entry.part.take(part, now).map(drop).map_err(|empty| empty.retry_after),
            None => Ok(()),
        }
    }

    /// Records a token that was charged without the store.
    pub fn record(&self, key: &str, quota: Quota, now: MonoTime) {
        let mut entries = self.lock();
        if let Some(entry) = entry(&mut entries, key, quota, now) {
            entry.quota = quota;
            entry.until = entry.until.max(now).after(Duration::from_nanos(quota.interval_ns()));
        }
    }

    /// Returns what is to be reported.
    pub fn reports(&self, now: MonoTime) -> Vec<UsageReport> {
        let report = |(key, entry): (&String, &Unreported)| {
            let ahead = entry.until.since(now);
            (!ahead.is_zero()).then(|| UsageReport { key: key.clone(), quota: entry.quota, ahead })
        };
        self.lock().iter().filter_map(report).collect()
    }

    /// Removes what the store has received. Charges that were recorded meanwhile stay.
    pub fn acknowledge(&self, report: &UsageReport) {
        if let Some(entry) = self.lock().get_mut(&report.key) {
            entry.until = entry.until.before(report.ahead);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Unreported>> {
        self.0.lock()
    }
}

fn entry<'a>(
    entries: &'a mut HashMap<String, Unreported>,
    key: &str,
    quota: Quota,
    now: MonoTime,
) -> Option<&'a mut Unreported> {
    if !entries.contains_key(key) {
        if entries.len() >= MAX_ENTRIES {
            entries.retain(|_, entry| entry.until > now || !entry.part.is_full(now));
        }
        if entries.len() >= MAX_ENTRIES {
            return None;
        }
        entries.insert(key.to_owned(), Unreported { quota, until: now, part: Bucket::default() });
    }
    entries.get_mut(key)
}
