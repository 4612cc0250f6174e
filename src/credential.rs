//! Fifth stage: the Cal.com credential of a permitted request.
//!
//! [`Credentials::select`] runs before anything is charged. It selects a credential by the caller, by the managed user that
//! the caller names and by what the operation accepts. [`Credentials::source`] and [`CredentialSource::obtain`] then produce
//! the headers, and wait only for a token that has expired. `refresh` renews tokens in the background.

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
    /// Name in the configuration.
    pub name: Arc<str>,
    /// Kind, with the secrets.
    pub kind: Kind,
    /// Whether callers see new tokens in the responses to operations that create them.
    pub reveal_tokens: bool,
    /// Whether a token store is configured.
    pub stored: bool,
}

/// Kind of a credential. Header values are marked sensitive, so that their `Debug` output is redacted.
#[derive(Debug, Clone)]
pub enum Kind {
    /// API key.
    ApiKey(ApiKey),
    /// OAuth grant.
    OAuth(OAuthClient),
    /// Platform client.
    PlatformClient(PlatformClient),
}

impl Kind {
    /// Calls `f` with each configured secret.
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

/// API key.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// `Bearer …`
    pub authorization: HeaderValue,
    /// Hash that distinguishes the key from others.
    pub fingerprint: String,
}

impl ApiKey {
    /// Creates a key from its text.
    pub fn new(key: &Secret) -> Self {
        Self { authorization: key.header("Bearer "), fingerprint: key.fingerprint() }
    }
}

/// OAuth client. Its grant is in the token store.
#[derive(Debug, Clone)]
pub struct OAuthClient {
    /// Client id.
    pub client_id: String,
    /// Client secret. A public client has none and uses PKCE (RFC 7636) instead.
    pub client_secret: Option<Secret>,
    /// Page where a user grants access.
    pub authorize_url: String,
    /// Whether a login uses PKCE.
    pub pkce: bool,
}

/// Platform client. It may also have an API key, for operations that accept only a bearer token.
#[derive(Debug, Clone)]
pub struct PlatformClient {
    /// `x-cal-client-id`
    pub id: HeaderValue,
    /// `x-cal-secret-key`
    pub secret: HeaderValue,
    /// API key.
    pub api_key: Option<ApiKey>,
    /// Settings of managed users, if callers may act for them.
    pub managed: Option<ManagedUsers>,
    /// Whether the client id and secret are also sent with operations for which the catalog lists only a bearer token.
    pub headers_anywhere: bool,
}

/// Settings for requests on behalf of managed users.
#[derive(Debug, Clone)]
pub struct ManagedUsers {
    /// Client id.
    pub client_id: String,
    /// Client secret, as a header value.
    pub secret: HeaderValue,
    /// Whether calgate may recover a lost pair by force-refresh, which ends all other sessions of the user.
    pub recover: bool,
    /// Cal.com's rate limit for each user's token.
    pub requests_per_minute: u32,
}

/// Way to renew a credential.
#[derive(Debug, Clone)]
pub enum RenewalMethod {
    /// `POST /v2/auth/oauth2/token`.
    OAuth(OAuthClient),
    /// `POST /v2/oauth/{clientId}/refresh`, and force-refresh if that is allowed.
    Managed(ManagedUsers),
    /// None: an API key. It changes only when a caller refreshes it.
    Key {
        /// Fingerprint of the configured key.
        configured: String,
    },
}

impl RenewalMethod {
    /// Returns whether the state of a credential stays valid when `other` replaces this method. It does not across kinds, or
    /// for another key.
    fn is_equivalent(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::OAuth(_), Self::OAuth(_)) | (Self::Managed(_), Self::Managed(_)) => true,
            (Self::Key { configured }, Self::Key { configured: other }) => configured == other,
            (Self::OAuth(_) | Self::Managed(_) | Self::Key { .. }, _) => false,
        }
    }
}

/// Request headers that authenticate a request at Cal.com.
#[derive(Debug, Clone)]
pub enum AuthHeaders {
    /// None: a public operation, called without a key.
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
    /// Returns the secret, without its scheme. No response may contain it.
    pub fn secret(&self) -> Option<&[u8]> {
        let value = match self {
            Self::Nothing => return None,
            Self::Bearer(value) => value.as_bytes(),
            Self::Client { secret, .. } => secret.as_bytes(),
        };
        Some(value.strip_prefix(b"Bearer ").unwrap_or(value))
    }
}

/// Credentials of all consumers.
#[derive(Debug)]
pub struct Credentials {
    /// Credential of each consumer, by [`ConsumerId`].
    pub consumers: Vec<Arc<Credential>>,
    /// Managed users that each consumer may act for, by [`ConsumerId`]. `None` means all.
    pub managed_users: Vec<Option<Arc<[UserId]>>>,
    /// Registry of the renewable credentials.
    pub registry: Arc<TokenRegistry>,
}

impl Credentials {
    /// Returns the credential of a consumer.
    pub fn of(&self, consumer: ConsumerId) -> Option<&Credential> {
        self.consumers.get(consumer.index()).map(|credential| &**credential)
    }

    /// Has the renewable ones held: those of an older configuration that are none any more are forgotten.
    pub fn register(&self) {
        self.registry.configure(&self.consumers);
    }
}

impl Credential {
    /// Returns the renewal method of the credential itself, if the token store has a record of it.
    pub fn renewal_method(&self) -> Option<RenewalMethod> {
        let key = |key: &ApiKey| RenewalMethod::Key { configured: key.fingerprint.clone() };
        match &self.kind {
            _ if !self.stored => None,
            Kind::ApiKey(own) => Some(key(own)),
            Kind::OAuth(client) => Some(RenewalMethod::OAuth(client.clone())),
            Kind::PlatformClient(client) => client.api_key.as_ref().map(key),
        }
    }

    /// Returns the renewal method of the credential itself, or of one of its managed users.
    pub fn renewal_method_of(&self, user: Option<UserId>) -> Option<RenewalMethod> {
        match user {
            None => self.renewal_method(),
            Some(_) => self.managed().cloned().map(RenewalMethod::Managed),
        }
    }

    /// Returns the settings of its managed users, if callers may act for them.
    pub fn managed(&self) -> Option<&ManagedUsers> {
        match &self.kind {
            Kind::PlatformClient(client) => client.managed.as_ref(),
            Kind::ApiKey(_) | Kind::OAuth(_) => None,
        }
    }
}
