//! As whom? The Cal.com credential that a permitted request goes upstream with.
//!
//! Fifth stage: [`Credentials::choose`] picks whose headers to inject by the caller's credential, by the managed user it
//! acts for and by what the operation takes. [`Choice::access`] has them; it waits only where a token has run out.
//! Keeping tokens fresh is the work of the `keeper`, beside the path.

mod access;
pub mod capture;
pub mod entry;
mod holders;
pub mod lifecycle;
pub mod live;
pub mod managed;
pub mod tokens;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

pub use access::{Access, Choice, is_token_expired, is_token_refused};
pub use holders::Holders;

use crate::catalog::Accepts;
use crate::entitle::Grant;
use crate::identify::{Consumer, ConsumerId, OwnHeaders, Who};
use crate::limit::Permit;
use crate::refusal::Refusal;
use crate::secret::Secret;
use entry::RecordName;
use managed::UserId;

/// A Cal.com credential, as configured.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Its name in the config.
    pub name: Arc<str>,
    /// What it consists of.
    pub kind: Kind,
    /// Whether callers see the tokens in answers to operations that make new ones.
    pub reveal_tokens: bool,
    /// Whether there is a store for tokens.
    pub stored: bool,
}

/// The kinds of credentials. Header values are marked sensitive, so that their `Debug` is redacted.
#[derive(Debug, Clone)]
pub enum Kind {
    /// An API key.
    ApiKey(ApiKey),
    /// An OAuth grant.
    OAuth(OAuthClient),
    /// A platform client.
    PlatformClient(PlatformClient),
}

/// An API key.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// `Bearer …`
    pub authorization: HeaderValue,
    /// Tells it from another one.
    pub fingerprint: String,
}

impl ApiKey {
    /// The key whose text this is.
    pub fn new(key: &Secret) -> Self {
        Self { authorization: key.header("Bearer "), fingerprint: key.fingerprint() }
    }
}

/// An OAuth client, whose grant is in the store.
#[derive(Debug, Clone)]
pub struct OAuthClient {
    /// Its id at Cal.com.
    pub client_id: String,
    /// Its secret; a public client has none and uses PKCE (RFC 7636) alone.
    pub client_secret: Option<Secret>,
    /// The page where a user grants access.
    pub authorize_url: String,
}

/// A platform client, and the API key it has beside, if any, for operations that take only a bearer.
#[derive(Debug, Clone)]
pub struct PlatformClient {
    /// `x-cal-client-id`
    pub id: HeaderValue,
    /// `x-cal-secret-key`
    pub secret: HeaderValue,
    /// The API key.
    pub api_key: Option<ApiKey>,
    /// Its managed users, where callers may act for them.
    pub managed: Option<ManagedUsers>,
}

/// What acting for managed users needs.
#[derive(Debug, Clone)]
pub struct ManagedUsers {
    /// The client's id.
    pub client_id: String,
    /// The client's secret, as a header value.
    pub secret: HeaderValue,
    /// Whether a lost pair may be recovered by force-refresh, which ends all other sessions of the user.
    pub recover: bool,
}

/// How a renewable credential gets a new pair.
#[derive(Debug, Clone)]
pub enum Means {
    /// `POST /v2/auth/oauth2/token`.
    OAuth(OAuthClient),
    /// `POST /v2/oauth/{clientId}/refresh`, and force-refresh where that is allowed.
    Managed(ManagedUsers),
    /// Not at all: an API key, which is replaced only when a caller has it refreshed.
    Key {
        /// The fingerprint of the configured key.
        configured: String,
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

impl Injection {
    /// What of it no answer may show: the values without their scheme.
    pub fn secret(&self) -> Option<&[u8]> {
        let value = match self {
            Self::Nothing => return None,
            Self::Bearer(value) => value.as_bytes(),
            Self::Client { secret, .. } => secret.as_bytes(),
        };
        Some(value.strip_prefix(b"Bearer ").unwrap_or(value))
    }
}

/// The proof that a caller has what its operation takes.
#[derive(Debug, Clone, Copy)]
pub struct Suited {
    /// The managed user it acts for.
    user: Option<UserId>,
}

/// All credentials, and whose they are.
#[derive(Debug)]
pub struct Credentials {
    /// By [`ConsumerId`].
    pub consumers: Vec<Arc<Credential>>,
    /// The managed users each consumer may act for; `None`: all. By [`ConsumerId`].
    pub managed_users: Vec<Option<Arc<[UserId]>>>,
    /// The renewable ones.
    pub holders: Arc<Holders>,
}

impl Credentials {
    /// The credential of a consumer.
    pub fn of(&self, consumer: ConsumerId) -> Option<&Credential> {
        self.consumers.get(consumer.index()).map(|credential| &**credential)
    }

    /// Has the renewable ones held: those of an older configuration that are none any more are forgotten.
    pub fn hold(&self) {
        self.holders.configure(&self.consumers);
    }

    /// Whether the caller has what the operation takes, and may act for whom it names in `headers`: asked before anything
    /// is charged, as a request that cannot be sent costs nothing.
    ///
    /// # Errors
    /// [`Refusal::CredentialUnsuitable`] where the operation takes none of what the credential has: Cal.com would
    /// answer 401 and count it (FACTS §2). [`Refusal::ManagedUserNotAllowed`] and [`Refusal::BadHeader`] for a managed
    /// user that this caller cannot act for.
    pub fn suit(&self, grant: &Grant<'_>, headers: &HeaderMap) -> Result<Suited, Refusal> {
        let user = managed::named(headers)?;
        match (grant.caller().who(), user) {
            (Who::Consumer(consumer), None) => {
                self.of(consumer.id).ok_or(Refusal::Internal)?.suits(accepted_by(grant))?;
            }
            (Who::Consumer(consumer), Some(user)) => drop(self.managed(consumer, user)?),
            (Who::Public(_) | Who::Passthrough(_), Some(_)) => return Err(no_managed_users()),
            (Who::Public(_), None) => {}
            (Who::Passthrough(own), None) => drop(own_injection(&own.headers, accepted_by(grant))?),
        }
        Ok(Suited { user })
    }

    /// Chooses whose headers to inject for a permitted request.
    ///
    /// # Errors
    /// [`Refusal::CredentialUnsuitable`] where the credential has nothing for the operation but managed users, and none is
    /// named.
    pub fn choose(&self, permit: &Permit<'_>, suited: Suited) -> Result<Choice, Refusal> {
        let accepts = accepted_by(permit.grant());
        match permit.grant().caller().who() {
            Who::Consumer(consumer) => self.of_consumer(consumer, suited.user, accepts),
            Who::Public(_) => Ok(Choice::Ready(Injection::Nothing)),
            Who::Passthrough(own) => own_injection(&own.headers, accepts).map(Choice::Ready),
        }
    }

    fn of_consumer(&self, consumer: &Consumer, user: Option<UserId>, accepts: Accepts) -> Result<Choice, Refusal> {
        let credential = self.of(consumer.id).ok_or(Refusal::Internal)?;
        let user = user.filter(|_| accepts != Accepts::Client);
        let Some(user) = user else { return credential.choose(accepts, &self.holders) };
        let managed = self.managed(consumer, user)?;
        let name = RecordName { credential: credential.name.clone(), user: Some(user) };
        Ok(Choice::Held(self.holders.hold(name, || Means::Managed(managed.clone())), None))
    }

    /// The managed users of a consumer's credential, of which it may act for this one.
    fn managed(&self, consumer: &Consumer, user: UserId) -> Result<&ManagedUsers, Refusal> {
        let managed = self.of(consumer.id).ok_or(Refusal::Internal)?.managed().ok_or_else(no_managed_users)?;
        let narrowed = self.managed_users.get(consumer.id.index()).and_then(Option::as_deref);
        if narrowed.is_some_and(|users| !users.contains(&user)) {
            return Err(Refusal::ManagedUserNotAllowed);
        }
        Ok(managed)
    }
}

/// What the operation takes. Nothing is known of an unknown endpoint; most take a bearer, and Cal.com decides.
fn accepted_by(grant: &Grant<'_>) -> Accepts {
    grant.matched().endpoint().map_or(Accepts::Any, |endpoint| endpoint.accepts)
}

fn no_managed_users() -> Refusal {
    Refusal::BadHeader("x-calgate-managed-user is only for consumers of a platform client with managed_users")
}

impl Credential {
    /// Whether there is something to inject for an operation that takes `accepts`.
    ///
    /// # Errors
    /// [`Refusal::CredentialUnsuitable`] where there is not.
    pub fn suits(&self, accepts: Accepts) -> Result<(), Refusal> {
        let (bearer, client) = match &self.kind {
            Kind::ApiKey(_) | Kind::OAuth(_) => (true, false),
            Kind::PlatformClient(client) => (client.api_key.is_some() || client.managed.is_some(), true),
        };
        suitable(accepts, bearer.then_some(()), client.then_some(())).ok_or_else(|| self.unsuitable(accepts))
    }

    /// What to inject for an operation that takes `accepts`: client headers where it takes only those, the bearer
    /// otherwise, and client headers again where there is no bearer.
    ///
    /// # Errors
    /// [`Refusal::CredentialUnsuitable`] where neither is there.
    pub fn choose(&self, accepts: Accepts, holders: &Holders) -> Result<Choice, Refusal> {
        let key = |key: &ApiKey| self.key(key, holders);
        let (bearer, client) = match &self.kind {
            Kind::ApiKey(own) => (Some(key(own)), None),
            Kind::OAuth(client) => {
                let name = RecordName { credential: self.name.clone(), user: None };
                let holder = holders.hold(name, || Means::OAuth(client.clone()));
                (Some(Choice::Held(holder, None)), None)
            }
            Kind::PlatformClient(PlatformClient { id, secret, api_key, .. }) => {
                let client = Injection::Client { id: id.clone(), secret: secret.clone() };
                (api_key.as_ref().map(key), Some(Choice::Ready(client)))
            }
        };
        suitable(accepts, bearer, client).ok_or_else(|| self.unsuitable(accepts))
    }

    /// The API key: where there is a store, that may hold a newer one.
    fn key(&self, key: &ApiKey, holders: &Holders) -> Choice {
        let configured = Injection::Bearer(key.authorization.clone());
        if !self.stored {
            return Choice::Ready(configured);
        }
        let name = RecordName { credential: self.name.clone(), user: None };
        let holder = holders.hold(name, || Means::Key { configured: key.fingerprint.clone() });
        Choice::Held(holder, Some(configured))
    }

    /// How the credential itself is renewed, where it has a record of its own in the store.
    pub fn means(&self) -> Option<Means> {
        let key = |key: &ApiKey| Means::Key { configured: key.fingerprint.clone() };
        match &self.kind {
            _ if !self.stored => None,
            Kind::ApiKey(own) => Some(key(own)),
            Kind::OAuth(client) => Some(Means::OAuth(client.clone())),
            Kind::PlatformClient(client) => client.api_key.as_ref().map(key),
        }
    }

    /// How a managed user of it is renewed, where it has any.
    pub fn managed(&self) -> Option<&ManagedUsers> {
        match &self.kind {
            Kind::PlatformClient(client) => client.managed.as_ref(),
            Kind::ApiKey(_) | Kind::OAuth(_) => None,
        }
    }

    fn unsuitable(&self, accepts: Accepts) -> Refusal {
        Refusal::CredentialUnsuitable { credential: self.name.clone(), wanted: wanted(accepts) }
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

fn suitable<T>(accepts: Accepts, bearer: Option<T>, client: Option<T>) -> Option<T> {
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
