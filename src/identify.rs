//! Identify stage: finds out who sends a request.
//!
//! [`Consumers::identify`] tries the ways to identify a caller in a fixed order. Each way has a file of its own: gateway keys
//! (`key_table`), Cal.com credentials of callers (`passthrough`), and callers without either (`keyless`). The result is a
//! [`Caller`] or a refusal. A later stage decides what the caller may do.

mod client_address;
mod host;
mod key;
mod key_table;
mod keyless;
mod leak;
mod passthrough;
mod presented;

use std::net::IpAddr;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue};

pub use client_address::{AddressKey, TrustedProxies};
pub use host::{ConnectionEnds, Hosts};
pub use key::GatewayKey;
pub use key_table::KnownKey;
pub use keyless::KeylessAccess;
pub use leak::LeakGuard;
pub(crate) use leak::contains_gateway_key;
pub use passthrough::{Passthrough, PassthroughCredential, PassthroughHeaders, credential_hash};

use crate::refusal::{AuthFailure, NoKey, Refusal};
use key_table::KeyTable;
use presented::PresentedCredentials;

/// Index of a consumer in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConsumerId(u32);

impl ConsumerId {
    pub(crate) fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// Returns the index into tables that have an entry for each consumer.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Internal service that calls Cal.com through the gateway.
#[derive(Debug)]
pub struct Consumer {
    /// Index into the tables of the later stages.
    pub id: ConsumerId,
    /// Name in the configuration, in logs and in metrics.
    pub name: Box<str>,
}

/// Identity of a caller.
#[derive(Debug)]
pub enum Identity<'a> {
    /// Consumer with a gateway key, or the one that `[anonymous] consumer` names.
    Consumer(&'a Consumer),
    /// Caller without a key, where `[anonymous]` names no consumer.
    Public(AddressKey),
    /// Caller with a Cal.com credential of its own.
    Passthrough(Box<PassthroughCredential>),
}

/// Proof that the caller of a request is identified.
#[derive(Debug)]
pub struct Caller<'a> {
    identity: Identity<'a>,
    /// Reason why the request has no gateway key. `None` for a consumer with a key and for a passthrough caller.
    no_key: Option<NoKey>,
}

impl<'a> Caller<'a> {
    /// Returns the identity.
    pub fn identity(&self) -> &Identity<'a> {
        &self.identity
    }

    /// Creates the caller for a consumer, without a key. Only `explain` does so.
    pub(crate) fn of_consumer(consumer: &'a Consumer) -> Self {
        Self { identity: Identity::Consumer(consumer), no_key: None }
    }

    /// Returns the client id that a passthrough caller sends in addition to a bearer token, as Cal.com's browser components do.
    /// Cal.com authenticates and counts by the token (FACTS §1), so calgate forwards the id with it.
    pub fn client_id_beside_bearer(&self) -> Option<&HeaderValue> {
        match &self.identity {
            Identity::Passthrough(credential) => credential.headers.client_id_beside_bearer(),
            Identity::Consumer(_) | Identity::Public(_) => None,
        }
    }

    /// Returns the reason for refusing a request that needs a gateway key or a credential.
    pub fn auth_failure(&self) -> AuthFailure {
        AuthFailure::NoKey(self.no_key.unwrap_or(NoKey::Missing))
    }

    /// Returns the name in logs and metrics.
    pub fn name(&self) -> &'a str {
        match &self.identity {
            Identity::Consumer(consumer) => &consumer.name,
            Identity::Public(_) => "(public)",
            Identity::Passthrough(_) => "(passthrough)",
        }
    }
}

/// Consumers with their gateway keys, and the settings for callers without a gateway key.
#[derive(Debug)]
pub struct Consumers {
    list: Vec<Consumer>,
    keys: KeyTable,
    anonymous: Option<ConsumerId>,
    passthrough: Option<Passthrough>,
}

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
        Self { list, keys: KeyTable::new(keys), anonymous, passthrough }
    }

    /// Remembers the keys that a reload removed, so that the access log names the former consumer of such a key.
    #[must_use]
    pub fn remember_revoked(mut self, previous: &Self) -> Self {
        self.keys.remember_revoked(&previous.keys, &previous.list);
        self
    }

    /// Returns the consumer with this name.
    pub fn find_by_name(&self, name: &str) -> Option<&Consumer> {
        self.list.iter().find(|c| &*c.name == name)
    }

    /// Returns all consumers, in the order of [`ConsumerId`].
    pub fn list(&self) -> &[Consumer] {
        &self.list
    }

    /// Identifies the caller by the headers of a request. The order is fixed:
    ///
    /// 1. A gateway key takes precedence. An invalid one is refused and never gives the caller another identity.
    /// 2. `[passthrough]` accepts a value in the form of a Cal.com credential.
    /// 3. Any other value is a placeholder. The caller is the `[anonymous]` consumer, or a public caller.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`] for an invalid gateway key, [`Refusal::InvalidHeader`] if the headers name two callers.
    pub fn identify(&self, headers: &HeaderMap, client: IpAddr, now: SystemTime) -> Result<Caller<'_>, Refusal> {
        let presented = PresentedCredentials::of(headers)?;
        if let Some(consumer) = self.keys.authenticate(&presented, &self.list, now)? {
            return Ok(Caller { identity: Identity::Consumer(consumer), no_key: None });
        }
        let no_key = match self.passthrough {
            Some(passthrough) => match passthrough.authenticate(&presented)? {
                Ok(credential) => {
                    return Ok(Caller { identity: Identity::Passthrough(Box::new(credential)), no_key: None });
                }
                Err(no_key) => no_key,
            },
            None if presented.is_empty() => NoKey::Missing,
            None => NoKey::Foreign,
        };
        Ok(Caller { identity: self.keyless(no_key, client), no_key: Some(no_key) })
    }

    /// Returns the identity of a caller that no other way identifies.
    fn keyless(&self, no_key: NoKey, client: IpAddr) -> Identity<'_> {
        let anonymous = self.anonymous.filter(|_| no_key.may_be_anonymous());
        match anonymous.and_then(|id| self.list.get(id.index())) {
            Some(consumer) => Identity::Consumer(consumer),
            None => Identity::Public(AddressKey::of(client)),
        }
    }
}
