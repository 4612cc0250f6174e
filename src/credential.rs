//! As whom? The Cal.com credential that a permitted request goes upstream with.
//!
//! Fifth stage: [`Credentials::choose`] picks what to inject by the caller's credential and by what the operation takes.

use std::sync::Arc;

use http::HeaderValue;

use crate::catalog::Accepts;
use crate::identify::{ConsumerId, OwnHeaders, Who};
use crate::limit::Permit;
use crate::refusal::Refusal;

/// A Cal.com credential, ready to inject.
#[derive(Debug)]
pub struct Credential {
    /// Its name in the config.
    pub name: Arc<str>,
    /// What it consists of.
    pub kind: Kind,
}

/// The kinds of credentials. Header values are marked sensitive, so that their `Debug` is redacted.
#[derive(Debug)]
pub enum Kind {
    /// An API key.
    ApiKey {
        /// `Bearer …`
        authorization: HeaderValue,
    },
    /// A platform client, and the API key it has beside, if any, for operations that take only a bearer.
    PlatformClient {
        /// `x-cal-client-id`
        id: HeaderValue,
        /// `x-cal-secret-key`
        secret: HeaderValue,
        /// `Bearer …`
        authorization: Option<HeaderValue>,
    },
}

/// The headers that make a request somebody's.
#[derive(Debug, Clone)]
pub enum Injection {
    /// None: a public operation for a caller without a key.
    Nothing,
    /// `Authorization`.
    Bearer(HeaderValue),
    /// `x-cal-client-id` and `x-cal-secret-key`.
    Client {
        /// `x-cal-client-id`
        id: HeaderValue,
        /// `x-cal-secret-key`
        secret: HeaderValue,
    },
}

/// All credentials, and whose they are.
#[derive(Debug)]
pub struct Credentials {
    /// By [`ConsumerId`].
    pub consumers: Vec<Arc<Credential>>,
}

impl Credentials {
    /// The credential of a consumer.
    pub fn of(&self, consumer: ConsumerId) -> Option<&Credential> {
        self.consumers.get(consumer.index()).map(|credential| &**credential)
    }

    /// Chooses what to inject for a permitted request.
    ///
    /// # Errors
    /// [`Refusal::CredentialUnsuitable`] where the operation takes none of what the credential has: Cal.com would
    /// answer 401 and count it (FACTS §2).
    pub fn choose(&self, permit: &Permit<'_>) -> Result<Injection, Refusal> {
        let grant = permit.grant();
        // Nothing is known of an unknown endpoint; most take a bearer, and Cal.com decides.
        let accepts = grant.matched().endpoint().map_or(Accepts::Any, |endpoint| endpoint.accepts);
        match grant.caller().who() {
            Who::Public(_) => Ok(Injection::Nothing),
            Who::Passthrough(own) => own_injection(&own.headers, accepts),
            Who::Consumer(consumer) => self.of(consumer.id).ok_or(Refusal::Internal)?.injection(accepts),
        }
    }
}

impl Credential {
    /// What to inject for an operation that takes `accepts`: client headers where it takes only those, the bearer
    /// otherwise, and client headers again where there is no bearer.
    ///
    /// # Errors
    /// [`Refusal::CredentialUnsuitable`] where neither is there.
    pub fn injection(&self, accepts: Accepts) -> Result<Injection, Refusal> {
        let (bearer, client) = match &self.kind {
            Kind::ApiKey { authorization } => (Some(authorization), None),
            Kind::PlatformClient { id, secret, authorization } => (authorization.as_ref(), Some((id, secret))),
        };
        let bearer = bearer.map(|value| Injection::Bearer(value.clone()));
        let client = client.map(|(id, secret)| Injection::Client { id: id.clone(), secret: secret.clone() });
        suitable(accepts, bearer, client)
            .ok_or_else(|| Refusal::CredentialUnsuitable { credential: self.name.clone(), wanted: wanted(accepts) })
    }
}

fn own_injection(own: &OwnHeaders, accepts: Accepts) -> Result<Injection, Refusal> {
    let (bearer, client) = match own.clone() {
        OwnHeaders::Bearer(value) => (Some(Injection::Bearer(value)), None),
        OwnHeaders::Client { id, secret } => (None, Some(Injection::Client { id, secret })),
    };
    suitable(accepts, bearer, client)
        .ok_or_else(|| Refusal::CredentialUnsuitable { credential: "(passthrough)".into(), wanted: wanted(accepts) })
}

fn suitable(accepts: Accepts, bearer: Option<Injection>, client: Option<Injection>) -> Option<Injection> {
    match accepts {
        Accepts::Bearer => bearer,
        Accepts::Client => client,
        Accepts::Either | Accepts::Any => bearer.or(client),
    }
}

fn wanted(accepts: Accepts) -> &'static str {
    match accepts {
        Accepts::Bearer => "an API key or access token",
        Accepts::Client => "a platform client's id and secret",
        Accepts::Either | Accepts::Any => "a credential",
    }
}
