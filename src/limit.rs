//! Fourth stage: does the consumer have requests left? One token bucket for each consumer.
//!
//! Fourth stage: [`Limits::take`] consumes a [`Grant`] and hands out a [`Permit`], or refuses. Nothing before this stage
//! costs a token, and nothing after it gives one back.

mod pending_charge;
mod proven;

use std::net::IpAddr;
use std::sync::Arc;

pub use pending_charge::PendingCharge;
pub use proven::ProvenKeys;

use crate::catalog::Accepts;
use crate::entitle::Grant;
use crate::identify::{AddressKey, Caller, ConsumerId, Identity};
use crate::limit_store::LimitStoreClient;
use crate::ratelimit::{Bucket, KeyedBuckets, Quota, RateLimitStatus, Tier};
use crate::refusal::Refusal;
use crate::time::MonoTime;
use pending_charge::BucketRef;

/// One consumer's limit.
#[derive(Debug, Clone)]
pub struct ConsumerLimit {
    /// The consumer's tier.
    pub tier: Arc<Tier>,
    /// The bucket all its keys share; kept over reloads.
    pub bucket: Arc<Bucket>,
    /// The consumer's name, and that of its credential, where buckets are shared.
    pub shared_as: Option<(Arc<str>, Arc<str>)>,
}

/// The limits of everyone.
#[derive(Debug)]
pub struct Limits {
    /// By [`ConsumerId`].
    pub consumers: Vec<ConsumerLimit>,
    /// Of callers without a key, by address.
    pub public: Arc<Tier>,
    /// Of passthrough callers, by credential; `None` where passthrough is off.
    pub passthrough: Option<Arc<Tier>>,
    /// The buckets of callers that no configuration lists.
    pub dynamic: Arc<DynamicBuckets>,
    /// Where the buckets are that other gateways take from, too.
    pub store: Option<Arc<LimitStoreClient>>,
    /// Gateways at least, while the store does not tell.
    pub expected_replicas: u32,
}

/// Buckets of callers that no configuration lists: bounded, and kept over reloads.
#[derive(Debug)]
pub struct DynamicBuckets {
    /// By client address.
    pub addresses: KeyedBuckets,
    /// By the hash of a caller's own credential.
    pub credentials: KeyedBuckets,
    /// Requests without a valid key or credential, by client address.
    pub failures: KeyedBuckets,
    /// Callers' own credentials that Cal.com has accepted: they are no guesses.
    pub proven: ProvenKeys,
}

/// How many requests without a valid key or credential one address may send a minute before they are answered 429.
const FAILURES_PER_MINUTE: u32 = 30;

/// How many minutes' worth of failures is held against an address, where more came than it may send.
const MAX_FAILURE_MINUTES: u32 = 10;

/// A bucket of failures.
fn failures() -> Quota {
    Quota::per_minute(FAILURES_PER_MINUTE, FAILURES_PER_MINUTE)
}

impl DynamicBuckets {
    /// Creates empty tables of at most `capacity` entries each.
    pub fn new(capacity: usize) -> Self {
        let table = || KeyedBuckets::new(capacity);
        Self { addresses: table(), credentials: table(), failures: table(), proven: ProvenKeys::new(capacity) }
    }
}

/// Whether a request's token is taken.
#[derive(Debug)]
pub enum ChargeState<'a> {
    /// The local bucket was charged.
    Taken,
    /// Gateways share the bucket: the next stage charges it in one call of the store with the budget.
    Pending(Box<PendingCharge<'a>>),
}

/// Proof that a request is allowed, entitled and charged, or that its charge is pending.
#[derive(Debug)]
pub struct Permit<'a> {
    grant: Grant<'a>,
    charge: ChargeState<'a>,
}

impl<'a> Permit<'a> {
    /// Returns what was granted.
    pub fn grant(&self) -> &Grant<'a> {
        &self.grant
    }

    /// Returns the charge that is still to be made, if any.
    pub fn pending_charge(&self) -> Option<&PendingCharge<'a>> {
        match &self.charge {
            ChargeState::Taken => None,
            ChargeState::Pending(pending) => Some(pending),
        }
    }
}

impl Limits {
    /// Takes one token for `grant`. The bucket's status is told either way.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`] if there is none; the bucket is left as it was.
    pub fn charge<'a>(
        &'a self,
        grant: Grant<'a>,
        now: MonoTime,
    ) -> (Option<RateLimitStatus>, Result<Permit<'a>, Refusal>) {
        let Some((bucket, quota)) = self.bucket_of(grant.caller()) else { return (None, Err(Refusal::Internal)) };
        // A shared bucket that is empty here is empty everywhere: the local copy is never emptier.
        let (charge, taken) = match self.pending_charge(grant.caller(), bucket, quota, now) {
            Some(pending) => (ChargeState::Pending(pending), bucket.check(quota, now)),
            None => (ChargeState::Taken, bucket.take(quota, now)),
        };
        match taken {
            Ok(status) => (Some(status), Ok(Permit { grant, charge })),
            Err(empty) => (Some(empty.status), Err(Refusal::RateLimited { retry_after: empty.retry_after })),
        }
    }

    /// How a caller's bucket stands, for answers that cost nothing.
    pub fn status(&self, caller: &Caller<'_>, now: MonoTime) -> Option<RateLimitStatus> {
        self.bucket_of(caller).map(|(bucket, quota)| bucket.status(quota, now))
    }

    fn bucket_of(&self, caller: &Caller<'_>) -> Option<(BucketRef<'_>, Quota)> {
        match caller.identity() {
            Identity::Consumer(consumer) => {
                self.consumers.get(consumer.id.index()).map(|own| (BucketRef::Consumer(&own.bucket), own.tier.quota))
            }
            Identity::Public(address) => {
                Some((BucketRef::Keyed(&self.dynamic.addresses, address.as_u128()), self.public.quota))
            }
            Identity::Passthrough(own) => {
                self.passthrough.as_ref().map(|tier| (BucketRef::Keyed(&self.dynamic.credentials, own.key), tier.quota))
            }
        }
    }

    /// Returns the charge of a bucket that gateways share.
    fn pending_charge<'a>(
        &'a self,
        caller: &Caller<'_>,
        bucket: BucketRef<'a>,
        quota: Quota,
        now: MonoTime,
    ) -> Option<Box<PendingCharge<'a>>> {
        let store = self.store.as_deref()?;
        let (tag, name) = match caller.identity() {
            Identity::Consumer(consumer) => self.consumers.get(consumer.id.index())?.shared_as.clone()?,
            Identity::Public(address) => ("public".into(), format!("{:x}", address.as_u128()).into()),
            Identity::Passthrough(own) => (hash_tag(own.key), "passthrough".into()),
        };
        Some(Box::new(PendingCharge { store, bucket, quota, now, tag, name, replicas: self.expected_replicas }))
    }

    /// Counts a request without a valid key from `address`. Who sends too many is told so instead of being told that
    /// the key is bad; a valid key is never slowed, wherever it comes from.
    pub fn count_auth_failure(&self, refusal: Refusal, address: IpAddr, now: MonoTime) -> Refusal {
        let Refusal::Unauthenticated(failure) = refusal else { return refusal };
        match self.dynamic.failures.take(AddressKey::of(address).as_u128(), failures(), now) {
            Ok(_) => Refusal::Unauthenticated(failure),
            Err(empty) => Refusal::TooManyFailures { failure: Some(failure), retry_after: empty.retry_after },
        }
    }

    /// Counts that Cal.com refused the credential that `caller` brought, as a bad key from `address` is counted. Many may
    /// be sent before the first one is refused: each counts, also where there are too many already. A credential that
    /// Cal.com has accepted before is no guess: such a refusal is about the resource (FACTS §1).
    pub fn count_rejected_credential(&self, caller: &Caller<'_>, address: IpAddr, now: MonoTime) {
        if let Identity::Passthrough(own) = caller.identity()
            && !self.dynamic.proven.contains(own.key)
        {
            let all = Quota::per_minute(FAILURES_PER_MINUTE, FAILURES_PER_MINUTE * MAX_FAILURE_MINUTES);
            let _ = self.dynamic.failures.take(AddressKey::of(address).as_u128(), all, now);
        }
    }

    /// Records that Cal.com carried out a request. Where the operation needs a credential, the caller's own is good.
    pub fn record_accepted_credential(&self, grant: &Grant<'_>, now: MonoTime) {
        if let Identity::Passthrough(own) = grant.caller().identity()
            && needs_credential(grant)
        {
            self.dynamic.proven.record(own.key, now);
        }
    }

    /// Whether a credential of the caller's own may be tried at all. A made-up one has a full bucket of its own, and only
    /// Cal.com can tell it from a good one: what bounds them is the address they come from. A credential that Cal.com has
    /// accepted is no guess.
    ///
    /// # Errors
    /// [`Refusal::TooManyFailures`] where too many from `address` were no good.
    pub fn check_failures(&self, caller: &Caller<'_>, address: IpAddr, now: MonoTime) -> Result<(), Refusal> {
        let Identity::Passthrough(own) = caller.identity() else { return Ok(()) };
        match self.dynamic.failures.check(AddressKey::of(address).as_u128(), failures(), now) {
            Err(empty) if !self.dynamic.proven.contains(own.key) => {
                Err(Refusal::TooManyFailures { failure: None, retry_after: empty.retry_after })
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The tier of a consumer.
    pub fn tier(&self, consumer: ConsumerId) -> Option<&Tier> {
        self.consumers.get(consumer.index()).map(|own| &*own.tier)
    }
}

/// Returns whether a successful response proves that the credential is good. A public operation answers anybody.
fn needs_credential(grant: &Grant<'_>) -> bool {
    grant.route().endpoint().is_some_and(|endpoint| !endpoint.public && endpoint.accepts != Accepts::Any)
}

/// What a credential is known by where gateways share limits: a part of its hash.
pub fn hash_tag(identity: u128) -> Arc<str> {
    format!("{:016x}", identity >> 64).into()
}
