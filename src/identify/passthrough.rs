//! Passthrough: callers that bring a Cal.com credential of their own.

use aws_lc_rs::digest::{Context, SHA256};
use http::HeaderValue;

use crate::identify::presented::PresentedCredentials;
use crate::refusal::{NoKey, Refusal};

/// Beginnings of API keys (FACTS §1): `cal_live_` is live mode, any other `cal_` test mode.
const API_KEY: &str = "cal_";
const LIVE_API_KEY: &str = "cal_live_";

/// `[passthrough]`: which credentials callers may bring.
#[derive(Debug, Clone, Copy)]
pub struct Passthrough {
    /// Whether test-mode API keys are taken.
    pub test_keys: bool,
    /// Whether live-mode API keys are taken.
    pub live_keys: bool,
}

/// A credential that a caller brought, its form validated.
pub struct PassthroughCredential {
    /// The headers to send upstream.
    pub headers: PassthroughHeaders,
    /// What its bucket is keyed by: half of the SHA-256 of its secret part. The client id is not in it, because a caller
    /// could vary that where Cal.com reads the id from the path.
    pub key: u128,
}

/// The forms a caller's own credential has.
#[derive(Clone)]
pub enum PassthroughHeaders {
    /// An API key or an access token.
    Bearer {
        /// The `Authorization` value to send.
        authorization: HeaderValue,
        /// `x-cal-client-id`. It says which client the user came by, and authenticates nobody (FACTS §1).
        client_id: Option<HeaderValue>,
    },
    /// A platform client's secret.
    Client {
        /// `x-cal-client-id`. Without it, the id has to be in the path.
        id: Option<HeaderValue>,
        /// `x-cal-secret-key`
        secret: HeaderValue,
    },
}

impl PassthroughHeaders {
    pub(super) fn client_id_beside_bearer(&self) -> Option<&HeaderValue> {
        match self {
            Self::Bearer { client_id, .. } => client_id.as_ref(),
            Self::Client { .. } => None,
        }
    }
}

/// What a request has in place of a gateway key, read by the rules of `[passthrough]`.
pub(super) enum Read {
    /// A credential of the caller's own.
    Own(PassthroughCredential),
    /// Nothing that may be sent.
    Nothing(NoKey),
}

impl std::fmt::Debug for PassthroughCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PassthroughCredential(redacted)")
    }
}

impl Passthrough {
    /// Reads the caller's credential.
    ///
    /// # Errors
    /// [`Refusal::InvalidHeader`] where a bearer token and a client's secret are both there: Cal.com would authenticate by
    /// one and count by the other (FACTS §1).
    pub(super) fn read(self, presented: &PresentedCredentials<'_>) -> Result<Read, Refusal> {
        match (presented.authorization(), presented.secret()) {
            (Some(_), Some(_)) => Err(Refusal::InvalidHeader("Authorization and x-cal-secret-key cannot both be sent")),
            (Some(token), None) => Ok(self.bearer(token, presented)),
            (None, Some(secret)) => Ok(client(presented.client_id()?, secret)),
            (None, None) if presented.api_key().is_some_and(|key| key.starts_with(API_KEY) || is_jwt(key)) => {
                Ok(Read::Nothing(NoKey::Unread))
            }
            (None, None) if presented.is_empty() => Ok(Read::Nothing(NoKey::Missing)),
            (None, None) => Ok(Read::Nothing(NoKey::NotACredential)),
        }
    }

    fn bearer(self, token: &str, presented: &PresentedCredentials<'_>) -> Read {
        let authorization = sensitive(&format!("Bearer {token}")).filter(|_| is_token(token));
        let Some(authorization) = authorization else { return Read::Nothing(NoKey::NotACredential) };
        if token.starts_with(LIVE_API_KEY) {
            if !self.live_keys {
                return Read::Nothing(NoKey::LiveKeysOff);
            }
        } else if token.starts_with(API_KEY) {
            if !self.test_keys {
                return Read::Nothing(NoKey::TestKeysOff);
            }
        } else if !is_jwt(token) {
            return Read::Nothing(NoKey::NotACredential);
        }
        // Two ids, or one that is none, identify nobody, as no id does.
        let client_id = presented.client_id().ok().flatten().filter(|id| is_token(id)).and_then(sensitive);
        let headers = PassthroughHeaders::Bearer { authorization, client_id };
        Read::Own(PassthroughCredential { headers, key: credential_hash(&[token]) })
    }
}

fn client(id: Option<&str>, secret: &str) -> Read {
    let own = || {
        let id = match id {
            Some(id) => Some(sensitive(id).filter(|_| is_token(id))?),
            None => None,
        };
        let secret_value = sensitive(secret).filter(|_| is_token(secret))?;
        Some(PassthroughCredential {
            headers: PassthroughHeaders::Client { id, secret: secret_value },
            key: credential_hash(&["", secret]),
        })
    };
    own().map_or(Read::Nothing(NoKey::NotACredential), Read::Own)
}

/// `token68` of RFC 9110 §11.2, of a length that credentials have.
fn is_token(text: &str) -> bool {
    let byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=');
    (8..=4096).contains(&text.len()) && text.bytes().all(byte)
}

/// Three base64url parts: the form of Cal.com's access tokens.
fn is_jwt(token: &str) -> bool {
    let part = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    token.split('.').count() == 3 && token.split('.').all(part)
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What a credential is told apart by: half of the SHA-256 of its parts.
pub fn credential_hash(parts: &[&str]) -> u128 {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    context.finish().as_ref().first_chunk().map_or(0, |half| u128::from_le_bytes(*half))
}
