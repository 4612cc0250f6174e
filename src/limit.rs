//! May they now? One token bucket per consumer, of the size and pace of its tier.
//!
//! Fourth stage: [`Limits::take`] consumes a [`Grant`] and hands out a [`Permit`], or refuses. Nothing before this stage
//! costs a token, and nothing after it gives one back.

mod bucket;
mod keyed;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use bucket::{Bucket, Quota, Standing, Tick};
pub use keyed::KeyedBuckets;

use crate::entitle::Grant;
use crate::identify::{AddressKey, Caller, ConsumerId, Who};
use crate::refusal::Refusal;

/// The monotonic clock of all buckets. Its zero outlives every reload, so a bucket means the same before and after.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since the start. They last for 584 years.
    pub fn now(self) -> Tick {
        Tick(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// A tier as the path uses it.
#[derive(Debug, Clone)]
pub struct Tier {
    /// Its name in the config.
    pub name: Arc<str>,
    /// Its size and pace.
    pub quota: Quota,
}

/// One consumer's limit.
#[derive(Debug, Clone)]
pub struct Own {
    /// The consumer's tier.
    pub tier: Arc<Tier>,
    /// The bucket all its keys share; kept over reloads.
    pub bucket: Arc<Bucket>,
}

/// The limits of everyone.
#[derive(Debug)]
pub struct Limits {
    /// By [`ConsumerId`].
    pub consumers: Vec<Own>,
    /// Of callers without a key, by address.
    pub public: Tier,
    /// Of passthrough callers, by credential; `None` where passthrough is off.
    pub passthrough: Option<Arc<Tier>>,
    /// The buckets of callers that no configuration lists.
    pub keyed: Arc<Keyed>,
}

/// Buckets of callers that no configuration lists: bounded, and kept over reloads.
#[derive(Debug)]
pub struct Keyed {
    /// By client address.
    pub addresses: KeyedBuckets,
    /// By the hash of a caller's own credential.
    pub credentials: KeyedBuckets,
    /// Requests without a valid key, by client address.
    pub failures: KeyedBuckets,
}

/// How many requests without a valid key one address may send a minute before they are answered 429 instead of 401.
const FAILURES_PER_MINUTE: u32 = 30;

impl Keyed {
    /// Empty tables of at most `capacity` entries each.
    pub fn new(capacity: usize) -> Self {
        let table = || KeyedBuckets::new(capacity);
        Self { addresses: table(), credentials: table(), failures: table() }
    }
}

/// Proof that a request is allowed, entitled and charged.
#[derive(Debug)]
pub struct Permit<'a> {
    grant: Grant<'a>,
}

impl<'a> Permit<'a> {
    /// What was granted.
    pub fn grant(&self) -> &Grant<'a> {
        &self.grant
    }
}

impl Limits {
    /// Takes one token for `grant`. The bucket's standing is told either way.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`] if there is none; the bucket is left as it was.
    pub fn take<'a>(&self, grant: Grant<'a>, now: Tick) -> (Option<Standing>, Result<Permit<'a>, Refusal>) {
        let taken = match grant.caller().who() {
            Who::Consumer(consumer) => {
                self.consumers.get(consumer.id.index()).map(|own| own.bucket.take(own.tier.quota, now))
            }
            Who::Public(address) => Some(self.keyed.addresses.take(address.as_u128(), self.public.quota, now)),
            Who::Passthrough(own) => {
                self.passthrough.as_ref().map(|tier| self.keyed.credentials.take(own.key, tier.quota, now))
            }
        };
        match taken {
            Some(Ok(standing)) => (Some(standing), Ok(Permit { grant })),
            Some(Err(empty)) => (Some(empty.standing), Err(Refusal::RateLimited { retry_after: empty.retry_after })),
            None => (None, Err(Refusal::Internal)),
        }
    }

    /// How a caller's bucket stands, for answers that cost nothing.
    pub fn standing(&self, caller: &Caller<'_>, now: Tick) -> Option<Standing> {
        match caller.who() {
            Who::Consumer(consumer) => {
                self.consumers.get(consumer.id.index()).map(|own| own.bucket.standing(own.tier.quota, now))
            }
            Who::Public(address) => Some(self.keyed.addresses.standing(address.as_u128(), self.public.quota, now)),
            Who::Passthrough(own) => {
                self.passthrough.as_ref().map(|tier| self.keyed.credentials.standing(own.key, tier.quota, now))
            }
        }
    }

    /// Counts a request without a valid key from `address`. Who sends too many is told so instead of being told that
    /// the key is bad; a valid key is never slowed, wherever it comes from.
    pub fn slow_down(&self, refusal: Refusal, address: IpAddr, now: Tick) -> Refusal {
        if !matches!(refusal, Refusal::Unauthenticated) {
            return refusal;
        }
        let quota = Quota::per_minute(FAILURES_PER_MINUTE, FAILURES_PER_MINUTE);
        match self.keyed.failures.take(AddressKey::of(address).as_u128(), quota, now) {
            Ok(_) => refusal,
            Err(empty) => Refusal::TooManyFailures { retry_after: empty.retry_after },
        }
    }

    /// The tier of a consumer.
    pub fn tier(&self, consumer: ConsumerId) -> Option<&Tier> {
        self.consumers.get(consumer.index()).map(|own| &*own.tier)
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
