//! First stage: who sends the request? Gateway keys, keyless clients, and clients with a credential of their own.
//!
//! First stage: [`Consumers::identify`] reads the head of a request and answers with a [`Caller`], or refuses. Whether
//! the caller may have what it asks for is not decided here.

mod client_address;
mod host;
mod key;
mod keyless;
mod leak;
mod passthrough;
mod presented;

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, HeaderValue};

pub use client_address::{AddressKey, TrustedProxies};
pub use host::{ConnectionEnds, Hosts};
pub use key::GatewayKey;
pub use keyless::KeylessAccess;
pub use leak::LeakGuard;
pub(crate) use leak::contains_gateway_key;
pub use passthrough::{Passthrough, PassthroughCredential, PassthroughHeaders, credential_hash};

use crate::prehashed::PrefixHasher;
use crate::refusal::{AuthFailure, NoKey, Refusal};
use crate::secret::KeyHash;
use passthrough::Read;
use presented::PresentedCredentials;

/// A consumer's index in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConsumerId(u32);

impl ConsumerId {
    pub(crate) fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// The index into tables by consumer.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// An internal service that calls through the gateway.
#[derive(Debug)]
pub struct Consumer {
    /// Its place in the tables of the later stages.
    pub id: ConsumerId,
    /// Its name in the config, logs and metrics.
    pub name: Box<str>,
}

/// Who a request comes from.
#[derive(Debug)]
pub enum Identity<'a> {
    /// A consumer, by its key or by `[anonymous] consumer`.
    Consumer(&'a Consumer),
    /// Anyone: no gateway key was sent, and no consumer stands for such callers.
    Public(AddressKey),
    /// A caller with a Cal.com credential of its own.
    Passthrough(Box<PassthroughCredential>),
}

/// The caller of one request.
#[derive(Debug)]
pub struct Caller<'a> {
    identity: Identity<'a>,
    /// What it sent in place of a gateway key.
    no_key: Option<NoKey>,
}

impl<'a> Caller<'a> {
    /// Who it is.
    pub fn identity(&self) -> &Identity<'a> {
        &self.identity
    }

    /// A consumer by name, for `explain`, which has no key to go by.
    pub(crate) fn of_consumer(consumer: &'a Consumer) -> Self {
        Self { identity: Identity::Consumer(consumer), no_key: None }
    }

    /// The client id that a caller sends beside a bearer token of its own, as Cal.com's browser components do. Cal.com
    /// authenticates and counts by the token (FACTS §1), so that the id goes upstream with it.
    pub fn client_id_beside_bearer(&self) -> Option<&HeaderValue> {
        match &self.identity {
            Identity::Passthrough(own) => own.headers.client_id_beside_bearer(),
            Identity::Consumer(_) | Identity::Public(_) => None,
        }
    }

    /// Why it is refused what needs a gateway key or a credential.
    pub fn auth_failure(&self) -> AuthFailure {
        AuthFailure::NoKey(self.no_key.unwrap_or(NoKey::Missing))
    }

    /// The name in logs and metrics.
    pub fn name(&self) -> &'a str {
        match &self.identity {
            Identity::Consumer(consumer) => &consumer.name,
            Identity::Public(_) => "(public)",
            Identity::Passthrough(_) => "(passthrough)",
        }
    }
}

/// One key of a consumer, as configured.
#[derive(Debug, Clone)]
pub struct KnownKey {
    /// Its SHA-256.
    pub hash: KeyHash,
    /// Whose it is.
    pub consumer: ConsumerId,
    /// From when on it is refused.
    pub expires: Option<SystemTime>,
}

/// What the table of keys tells of one.
#[derive(Debug)]
struct Owner {
    consumer: ConsumerId,
    expires: Option<SystemTime>,
}

/// Everyone the gateway knows.
#[derive(Debug)]
pub struct Consumers {
    list: Vec<Consumer>,
    keys: HashMap<KeyHash, Owner, BuildHasherDefault<PrefixHasher>>,
    /// Keys that reloads removed, and whose they were: a request with one says so in the access log.
    revoked: HashMap<KeyHash, Arc<str>, BuildHasherDefault<PrefixHasher>>,
    anonymous: Option<ConsumerId>,
    passthrough: Option<Passthrough>,
}

/// Maximum removed keys that are remembered: as many as a large configuration has, at about 60 bytes each.
const MAX_REVOKED: usize = 10_000;

impl Consumers {
    /// Builds the tables. `names` are in the order of [`ConsumerId`].
    pub fn new(
        names: Vec<Box<str>>,
        keys: Vec<KnownKey>,
        anonymous: Option<ConsumerId>,
        passthrough: Option<Passthrough>,
    ) -> Self {
        let list =
            names.into_iter().enumerate().map(|(i, name)| Consumer { id: ConsumerId::from_index(i), name }).collect();
        let keys =
            keys.into_iter().map(|KnownKey { hash, consumer, expires }| (hash, Owner { consumer, expires })).collect();
        Self { list, keys, revoked: HashMap::default(), anonymous, passthrough }
    }

    /// Remembers the keys that `previous` has, or remembers, and that are gone. The latest come first.
    #[must_use]
    pub fn remember_revoked(mut self, previous: &Self) -> Self {
        let owner_of = |owner: &Owner| previous.list.get(owner.consumer.index());
        let removed = previous.keys.iter().filter_map(|(hash, owner)| Some((*hash, (*owner_of(owner)?.name).into())));
        let earlier = previous.revoked.iter().map(|(hash, consumer)| (*hash, consumer.clone()));
        let gone = removed.chain(earlier).filter(|(hash, _)| !self.keys.contains_key(hash));
        self.revoked = gone.take(MAX_REVOKED).collect();
        self
    }

    /// The consumer of that name.
    pub fn find_by_name(&self, name: &str) -> Option<&Consumer> {
        self.list.iter().find(|c| &*c.name == name)
    }

    /// All consumers, in the order of [`ConsumerId`].
    pub fn list(&self) -> &[Consumer] {
        &self.list
    }

    /// Reads who asks from a request's headers. A gateway key comes first, whatever else is there; a wrong one never
    /// becomes another identity. Then `[passthrough]` takes what has the form of a Cal.com credential. Anything else is a
    /// placeholder: the request is the `[anonymous]` consumer's, or anyone's.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`] for a wrong gateway key; [`Refusal::InvalidHeader`] where the headers name two callers.
    pub fn identify(&self, headers: &HeaderMap, client: IpAddr, now: SystemTime) -> Result<Caller<'_>, Refusal> {
        let presented = PresentedCredentials::of(headers)?;
        if let Some(key) = presented.gateway_key()? {
            let consumer = self.by_key(key, now).map_err(Refusal::Unauthenticated)?;
            return Ok(Caller { identity: Identity::Consumer(consumer), no_key: None });
        }
        self.identify_keyless(&presented, client)
    }

    fn by_key(&self, text: &str, now: SystemTime) -> Result<&Consumer, AuthFailure> {
        let hash = GatewayKey::check(text)?.hash();
        let Some((known, owner)) = self.keys.get_key_value(&hash) else {
            let revoked =
                self.revoked.get(&hash).map(|consumer| AuthFailure::Revoked { hash, consumer: consumer.clone() });
            return Err(revoked.unwrap_or(AuthFailure::Unknown(hash)));
        };
        // The table finds the entry by the first bytes of a hash, which tells a prober nothing about a key; that the
        // whole of it agrees is compared in constant time.
        let same = verify_slices_are_equal(known.as_bytes(), hash.as_bytes()).is_ok();
        let consumer = self.list.get(owner.consumer.index()).filter(|_| same).ok_or(AuthFailure::Unknown(hash))?;
        if owner.expires.is_some_and(|expires| expires <= now) {
            return Err(AuthFailure::Expired { hash, consumer: (*consumer.name).into() });
        }
        Ok(consumer)
    }

    fn identify_keyless(&self, presented: &PresentedCredentials<'_>, client: IpAddr) -> Result<Caller<'_>, Refusal> {
        if presented.has_misplaced_key() {
            return Err(Refusal::Unauthenticated(AuthFailure::Misplaced));
        }
        let no_key = match self.passthrough {
            None if presented.is_empty() => NoKey::Missing,
            None => NoKey::Foreign,
            Some(passthrough) => match passthrough.read(presented)? {
                Read::Own(own) => return Ok(Caller { identity: Identity::Passthrough(Box::new(own)), no_key: None }),
                Read::Nothing(no_key) => no_key,
            },
        };
        let anonymous = self.anonymous.filter(|_| no_key.may_be_anonymous());
        let identity = match anonymous.and_then(|id| self.list.get(id.index())) {
            Some(consumer) => Identity::Consumer(consumer),
            None => Identity::Public(AddressKey::of(client)),
        };
        Ok(Caller { identity, no_key: Some(no_key) })
    }
}
