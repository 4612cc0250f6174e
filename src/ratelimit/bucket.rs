//! The token bucket, as one number: the generic cell rate algorithm (ITU-T I.371, annex A).
//!
//! A bucket's whole state is the *theoretical arrival time* at which it would be full again. A request moves it one
//! token's time ahead; it may not lie further ahead of now than the bucket is deep. The quota is given at each call, so
//! a change of tier neither fills nor empties a bucket: the time it needs to be full again stays what it was, also where
//! that is longer than the new tier's bucket is deep. One compare-and-swap per request makes it exact under any
//! concurrency.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::{Tick, nanoseconds};

const MINUTE_NS: u64 = 60_000_000_000;

/// A bucket's size and pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Time in which one token comes back, in nanoseconds.
    interval_ns: u64,
    /// Tokens in a full bucket.
    burst: u32,
}

impl Quota {
    /// `requests_per_minute` on the long run, `burst` at once; zero of either counts as one. An interval that is no
    /// whole number of nanoseconds is rounded up, so that the pace is never exceeded.
    pub fn per_minute(requests_per_minute: u32, burst: u32) -> Self {
        Self { interval_ns: MINUTE_NS.div_ceil(u64::from(requests_per_minute.max(1))), burst: burst.max(1) }
    }

    /// Tokens in a full bucket.
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// Time in which an empty bucket is full again.
    pub fn window(self) -> Duration {
        Duration::from_nanos(self.depth_ns())
    }

    /// Time in which one token comes back, in nanoseconds.
    pub fn interval_ns(self) -> u64 {
        self.interval_ns
    }

    /// The same for all tokens of a full bucket.
    pub fn depth_ns(self) -> u64 {
        self.interval_ns.saturating_mul(u64::from(self.burst))
    }

    /// An equal part of it for each of so many gateways.
    #[must_use]
    pub fn part(self, gateways: u32) -> Self {
        let gateways = gateways.max(1);
        let interval_ns = self.interval_ns.saturating_mul(u64::from(gateways));
        Self { interval_ns, burst: (self.burst / gateways).max(1) }
    }

    /// How long a token has to be waited for, if at all, in a bucket that is full after `ahead`.
    pub fn wait(self, ahead: Duration) -> Option<Duration> {
        let ahead = nanoseconds(ahead).saturating_add(self.interval_ns);
        ahead.checked_sub(self.depth_ns()).filter(|&ns| ns > 0).map(Duration::from_nanos)
    }

    fn standing(self, ahead_ns: u64) -> Standing {
        let free_ns = self.depth_ns().saturating_sub(ahead_ns);
        let remaining = u32::try_from(free_ns / self.interval_ns).unwrap_or(u32::MAX);
        Standing { limit: self.burst, remaining, reset: Duration::from_nanos(ahead_ns), window: self.window() }
    }
}

/// How a bucket stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Tokens in a full bucket.
    pub limit: u32,
    /// Tokens that are there now.
    pub remaining: u32,
    /// Until it is full.
    pub reset: Duration,
    /// Time in which an empty one is full again.
    pub window: Duration,
}

/// A token bucket. New, it is full.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Bucket {
    /// Takes one token.
    ///
    /// # Errors
    /// [`Empty`] if none is there.
    pub fn take(&self, quota: Quota, now: Tick) -> Result<Standing, Empty> {
        let mut full_at = self.0.load(Ordering::Relaxed);
        loop {
            let before = full_at.saturating_sub(now.0);
            let ahead = before.saturating_add(quota.interval_ns);
            if ahead > quota.depth_ns() {
                let retry_after = Duration::from_nanos(ahead - quota.depth_ns());
                return Err(Empty { standing: quota.standing(before), retry_after });
            }
            let next = now.0.saturating_add(ahead);
            match self.0.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(quota.standing(ahead)),
                Err(current) => full_at = current,
            }
        }
    }

    /// Whether a token is there; none is taken.
    ///
    /// # Errors
    /// [`Empty`] if there is none.
    pub fn check(&self, quota: Quota, now: Tick) -> Result<Standing, Empty> {
        let ahead = self.0.load(Ordering::Relaxed).saturating_sub(now.0);
        match quota.wait(Duration::from_nanos(ahead)) {
            None => Ok(quota.standing(ahead)),
            Some(retry_after) => Err(Empty { standing: quota.standing(ahead), retry_after }),
        }
    }

    /// Another one that stands as this one does.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }

    /// It is not full before `full_at`: others have taken from it, too.
    pub fn learn(&self, full_at: Tick) {
        self.0.fetch_max(full_at.0, Ordering::Relaxed);
    }

    /// How it stands.
    pub fn standing(&self, quota: Quota, now: Tick) -> Standing {
        quota.standing(self.0.load(Ordering::Relaxed).saturating_sub(now.0))
    }

    /// Whether it is full, and so the same as a new one.
    pub fn is_full(&self, now: Tick) -> bool {
        self.0.load(Ordering::Relaxed) <= now.0
    }
}

/// Why a take failed: how the bucket stands, and for how long it stays empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Empty {
    /// The bucket as it is.
    pub standing: Standing,
    /// Until one token is there.
    pub retry_after: Duration,
}
