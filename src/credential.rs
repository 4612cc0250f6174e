//! As whom? The Cal.com credential that a permitted request goes upstream with.
//!
//! [`Credentials::select`] finds as whom, before anything is charged: by the caller's credential, by the managed user it acts
//! for and by what the operation takes. Fifth stage: [`Credentials::source`] picks those headers, and [`CredentialSource::obtain`] has
//! them; it waits only where a token has run out. `refresh` renews tokens in the background.

pub mod capture;
pub mod lifecycle;
pub mod managed_user;
pub mod received_tokens;
mod registry;
pub mod rejections;
mod select;
pub mod stored_token;
mod token_response;
pub mod token_state;
mod upstream_auth;

use std::sync::Arc;

use http::HeaderValue;

pub use registry::TokenRegistry;
pub use select::Selected;
pub use upstream_auth::{CredentialSource, UpstreamAuth, is_token_expired, is_token_refused};

use crate::identify::ConsumerId;
use crate::secret::Secret;
use managed_user::UserId;
use stored_token::RecordName;

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

impl Kind {
    /// Lends each configured secret to `f`.
    pub fn with_secrets(&self, mut f: impl FnMut(&[u8])) {
        let of_key = |key: &ApiKey| AuthHeaders::Bearer(key.authorization.clone());
        match self {
            Self::ApiKey(key) => of_key(key).secret().into_iter().for_each(f),
            Self::OAuth(client) => {
                client.client_secret.iter().for_each(|secret| secret.expose(|text| f(text.as_bytes())));
            }
            Self::PlatformClient(client) => {
                f(client.secret.as_bytes());
                client.api_key.as_ref().map(of_key).iter().filter_map(AuthHeaders::secret).for_each(f);
            }
        }
    }
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
    /// Its secret; a public client has none and uses PKCE (RFC 7636) instead.
    pub client_secret: Option<Secret>,
    /// The page where a user grants access.
    pub authorize_url: String,
    /// Whether a login uses PKCE.
    pub pkce: bool,
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
    /// Whether its id and secret are sent with operations, too, for which the catalog lists only a bearer.
    pub headers_anywhere: bool,
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
    /// What Cal.com grants each user's token.
    pub requests_per_minute: u32,
}

/// How a renewable credential gets a new pair.
#[derive(Debug, Clone)]
pub enum RenewalMethod {
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

impl RenewalMethod {
    /// Whether what is known of a credential with the one means holds with the other: not from kind to kind, nor from key to
    /// key.
    fn is_equivalent(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::OAuth(_), Self::OAuth(_)) | (Self::Managed(_), Self::Managed(_)) => true,
            (Self::Key { configured }, Self::Key { configured: other }) => configured == other,
            (Self::OAuth(_) | Self::Managed(_) | Self::Key { .. }, _) => false,
        }
    }
}

/// The headers that make a request somebody's.
#[derive(Debug, Clone)]
pub enum AuthHeaders {
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

impl AuthHeaders {
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

/// All credentials, and whose they are.
#[derive(Debug)]
pub struct Credentials {
    /// By [`ConsumerId`].
    pub consumers: Vec<Arc<Credential>>,
    /// The managed users each consumer may act for; `None`: all. By [`ConsumerId`].
    pub managed_users: Vec<Option<Arc<[UserId]>>>,
    /// The renewable ones.
    pub registry: Arc<TokenRegistry>,
}

impl Credentials {
    /// The credential of a consumer.
    pub fn of(&self, consumer: ConsumerId) -> Option<&Credential> {
        self.consumers.get(consumer.index()).map(|credential| &**credential)
    }

    /// Has the renewable ones held: those of an older configuration that are none any more are forgotten.
    pub fn register(&self) {
        self.registry.configure(&self.consumers);
    }
}

impl Credential {
    /// How the credential itself is renewed, where it has a record of its own in the store.
    pub fn renewal_method(&self) -> Option<RenewalMethod> {
        let key = |key: &ApiKey| RenewalMethod::Key { configured: key.fingerprint.clone() };
        match &self.kind {
            _ if !self.stored => None,
            Kind::ApiKey(own) => Some(key(own)),
            Kind::OAuth(client) => Some(RenewalMethod::OAuth(client.clone())),
            Kind::PlatformClient(client) => client.api_key.as_ref().map(key),
        }
    }

    /// The same of the credential itself or of a managed user of it.
    pub fn renewal_method_of(&self, user: Option<UserId>) -> Option<RenewalMethod> {
        match user {
            None => self.renewal_method(),
            Some(_) => self.managed().cloned().map(RenewalMethod::Managed),
        }
    }

    /// How a managed user of it is renewed, where it has any.
    pub fn managed(&self) -> Option<&ManagedUsers> {
        match &self.kind {
            Kind::PlatformClient(client) => client.managed.as_ref(),
            Kind::ApiKey(_) | Kind::OAuth(_) => None,
        }
    }
}
