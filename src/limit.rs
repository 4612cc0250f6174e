//! Fourth stage: does the consumer have requests left? One token bucket for each consumer.
//!
//! [`Limits::charge`] consumes a [`Grant`] and returns a [`Permit`], or refuses. No earlier stage costs a token, and no later
//! stage returns one.

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

/// Limit of one consumer.
#[derive(Debug, Clone)]
pub struct ConsumerLimit {
    /// The consumer's tier.
    pub tier: Arc<Tier>,
    /// Bucket that all keys of the consumer share. It outlives reloads.
    pub bucket: Arc<Bucket>,
    /// Hash tag of the credential and name of the consumer, if gateways share the bucket.
    pub shared_as: Option<(Arc<str>, Arc<str>)>,
}

/// Limits of all callers.
#[derive(Debug)]
pub struct Limits {
    /// Limits of consumers, by [`ConsumerId`].
    pub consumers: Vec<ConsumerLimit>,
    /// Tier of callers without a key, which are counted by address.
    pub public: Arc<Tier>,
    /// Tier of passthrough callers, which are counted by credential; `None` if passthrough is off.
    pub passthrough: Option<Arc<Tier>>,
    /// Buckets of callers that no configuration lists.
    pub dynamic: Arc<DynamicBuckets>,
    /// Store of the buckets that gateways share.
    pub store: Option<Arc<LimitStoreClient>>,
    /// Minimum number of gateways, while the store does not report it.
    pub expected_replicas: u32,
}

/// Buckets of callers that no configuration lists. They are bounded, and outlive reloads.
#[derive(Debug)]
pub struct DynamicBuckets {
    /// By client address.
    pub addresses: KeyedBuckets,
    /// By the hash of the caller's credential.
    pub credentials: KeyedBuckets,
    /// Requests without a valid key or credential, by client address.
    pub failures: KeyedBuckets,
    /// Credentials of callers that Cal.com has accepted, and that are therefore no guesses.
    pub proven: ProvenKeys,
}

/// Requests per minute without a valid key or credential after which an address receives 429.
const FAILURES_PER_MINUTE: u32 = 30;

/// Largest debt of an address, in minutes of allowed failures.
const MAX_FAILURE_MINUTES: u32 = 10;

/// Returns the quota of failures.
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

/// State of a request's charge.
#[derive(Debug)]
pub enum ChargeState<'a> {
    /// The local bucket was charged.
    Taken,
    /// Gateways share the bucket: the next stage charges it in one call of the store with the budget.
    Pending(Box<PendingCharge<'a>>),
}

/// Proof that a request is allowed, entitled, and either charged or about to be charged.
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

    /// Returns the pending charge, if any.
    pub fn pending_charge(&self) -> Option<&PendingCharge<'a>> {
        match &self.charge {
            ChargeState::Taken => None,
            ChargeState::Pending(pending) => Some(pending),
        }
    }
}

impl Limits {
    /// Takes one token for `grant`. Returns the state of the bucket in both cases.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`] if there is none. The bucket then stays unchanged.
    pub fn charge<'a>(
        &'a self,
        grant: Grant<'a>,
        now: MonoTime,
    ) -> (Option<RateLimitStatus>, Result<Permit<'a>, Refusal>) {
        let Some((bucket, quota)) = self.bucket_of(grant.caller()) else { return (None, Err(Refusal::Internal)) };
        // The local copy of a shared bucket is never emptier than the shared one. So an empty copy means an empty shared bucket.
        let (charge, taken) = match self.pending_charge(grant.caller(), bucket, quota, now) {
            Some(pending) => (ChargeState::Pending(pending), bucket.check(quota, now)),
            None => (ChargeState::Taken, bucket.take(quota, now)),
        };
        match taken {
            Ok(status) => (Some(status), Ok(Permit { grant, charge })),
            Err(empty) => (Some(empty.status), Err(Refusal::RateLimited { retry_after: empty.retry_after })),
        }
    }

    /// Returns the state of a caller's bucket, for responses that cost no token.
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

    /// Returns the charge of a bucket, if gateways share it.
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

    /// Counts a request without a valid key from `address`. After too many, the refusal says so instead of naming the fault of
    /// the key. A valid key is never slowed down, whatever its address is.
    pub fn count_auth_failure(&self, refusal: Refusal, address: IpAddr, now: MonoTime) -> Refusal {
        let Refusal::Unauthenticated(failure) = refusal else { return refusal };
        match self.dynamic.failures.take(AddressKey::of(address).as_u128(), failures(), now) {
            Ok(_) => Refusal::Unauthenticated(failure),
            Err(empty) => Refusal::TooManyFailures { failure: Some(failure), retry_after: empty.retry_after },
        }
    }

    /// Counts that Cal.com rejected the credential of `caller`, like an invalid key from `address`. Many may be sent before
    /// Cal.com rejects the first one, so each counts, even after too many. A credential that Cal.com accepted before is no guess:
    /// such a rejection is about the resource (FACTS §1).
    pub fn count_rejected_credential(&self, caller: &Caller<'_>, address: IpAddr, now: MonoTime) {
        if let Identity::Passthrough(own) = caller.identity()
            && !self.dynamic.proven.contains(own.key)
        {
            let all = Quota::per_minute(FAILURES_PER_MINUTE, FAILURES_PER_MINUTE * MAX_FAILURE_MINUTES);
            let _ = self.dynamic.failures.take(AddressKey::of(address).as_u128(), all, now);
        }
    }

    /// Records that Cal.com accepted a request. If the operation needs a credential, the caller's credential is valid.
    pub fn record_accepted_credential(&self, grant: &Grant<'_>, now: MonoTime) {
        if let Identity::Passthrough(own) = grant.caller().identity()
            && needs_credential(grant)
        {
            self.dynamic.proven.record(own.key, now);
        }
    }

    /// Rejects a passthrough caller if its address sent too many invalid credentials. Each invented credential has a full bucket
    /// of its own, and only Cal.com can tell it from a valid one, so the limit is per address. A credential that Cal.com accepted
    /// before passes.
    ///
    /// # Errors
    /// [`Refusal::TooManyFailures`] after too many invalid credentials from `address`.
    pub fn check_failures(&self, caller: &Caller<'_>, address: IpAddr, now: MonoTime) -> Result<(), Refusal> {
        let Identity::Passthrough(own) = caller.identity() else { return Ok(()) };
        match self.dynamic.failures.check(AddressKey::of(address).as_u128(), failures(), now) {
            Err(empty) if !self.dynamic.proven.contains(own.key) => {
                Err(Refusal::TooManyFailures { failure: None, retry_after: empty.retry_after })
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Returns the tier of a consumer.
    pub fn tier(&self, consumer: ConsumerId) -> Option<&Tier> {
        self.consumers.get(consumer.index()).map(|own| &*own.tier)
    }
}

/// Returns whether a successful response proves that the credential is valid. A public operation answers everyone.
fn needs_credential(grant: &Grant<'_>) -> bool {
    grant.route().endpoint().is_some_and(|endpoint| !endpoint.public && endpoint.accepts != Accepts::Any)
}

/// Returns the hash tag of a credential in the limit store: a part of its hash.
pub fn hash_tag(identity: u128) -> Arc<str> {
    format!("{:016x}", identity >> 64).into()
}
