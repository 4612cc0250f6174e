//! Passthrough callers, which bring a Cal.com credential of their own.

use aws_lc_rs::digest::{Context, SHA256};
use http::HeaderValue;

use crate::identify::presented::PresentedCredentials;
use crate::refusal::{NoKey, Refusal};

/// Start of API keys (FACTS §1).
const API_KEY: &str = "cal_";
/// Start of live-mode API keys. Any other API key is of test mode.
const LIVE_API_KEY: &str = "cal_live_";

/// Kinds of credentials that callers may bring (`[passthrough]`).
#[derive(Debug, Clone, Copy)]
pub struct Passthrough {
    /// Whether calgate accepts test-mode API keys.
    pub test_keys: bool,
    /// Whether calgate accepts live-mode API keys.
    pub live_keys: bool,
}

/// Credential of a caller, in a valid form. Only Cal.com can tell whether it is accepted.
pub struct PassthroughCredential {
    /// Headers to send to Cal.com.
    pub headers: PassthroughHeaders,
    /// Key of its bucket: the first half of the SHA-256 of its secret. The client id does not count, because a caller can vary
    /// it where Cal.com reads the id from the path.
    pub key: u128,
}

/// Headers of a caller's credential, by its kind.
#[derive(Clone)]
pub enum PassthroughHeaders {
    /// API key or access token.
    Bearer {
        /// Value of `Authorization`.
        authorization: HeaderValue,
        /// Value of `x-cal-client-id`. It names the client that the user came from, and authenticates nobody (FACTS §1).
        client_id: Option<HeaderValue>,
    },
    /// Secret of a platform client.
    Client {
        /// Value of `x-cal-client-id`. Without it, the id must be in the path.
        id: Option<HeaderValue>,
        /// Value of `x-cal-secret-key`.
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

impl std::fmt::Debug for PassthroughCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PassthroughCredential(redacted)")
    }
}

impl Passthrough {
    /// Returns the credential of the caller, or the reason why the request has none.
    ///
    /// # Errors
    /// [`Refusal::InvalidHeader`] if the request has both a bearer token and a client secret. Cal.com would authenticate by one
    /// and count by the other (FACTS §1).
    pub(super) fn authenticate(
        self,
        presented: &PresentedCredentials<'_>,
    ) -> Result<Result<PassthroughCredential, NoKey>, Refusal> {
        match (presented.authorization(), presented.secret()) {
            (Some(_), Some(_)) => Err(Refusal::InvalidHeader("Authorization and x-cal-secret-key cannot both be sent")),
            (Some(token), None) => Ok(self.bearer(token, presented)),
            (None, Some(secret)) => Ok(client(presented.client_id()?, secret)),
            (None, None) if presented.api_key().is_some_and(|key| key.starts_with(API_KEY) || is_jwt(key)) => {
                Ok(Err(NoKey::Unread))
            }
            (None, None) if presented.is_empty() => Ok(Err(NoKey::Missing)),
            (None, None) => Ok(Err(NoKey::NotACredential)),
        }
    }

    fn bearer(self, token: &str, presented: &PresentedCredentials<'_>) -> Result<PassthroughCredential, NoKey> {
        let authorization = sensitive(&format!("Bearer {token}")).filter(|_| is_token(token));
        let Some(authorization) = authorization else { return Err(NoKey::NotACredential) };
        if token.starts_with(LIVE_API_KEY) {
            if !self.live_keys {
                return Err(NoKey::LiveKeysOff);
            }
        } else if token.starts_with(API_KEY) {
            if !self.test_keys {
                return Err(NoKey::TestKeysOff);
            }
        } else if !is_jwt(token) {
            return Err(NoKey::NotACredential);
        }
        // Two ids, or an invalid one, identify no client. calgate forwards none then.
        let client_id = presented.client_id().ok().flatten().filter(|id| is_token(id)).and_then(sensitive);
        let headers = PassthroughHeaders::Bearer { authorization, client_id };
        Ok(PassthroughCredential { headers, key: credential_hash(&[token]) })
    }
}

fn client(id: Option<&str>, secret: &str) -> Result<PassthroughCredential, NoKey> {
    let credential = || {
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
    credential().ok_or(NoKey::NotACredential)
}

/// Returns whether the text is a `token68` (RFC 9110 §11.2) of 8 to 4096 characters, which is the length of credentials.
fn is_token(text: &str) -> bool {
    let byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=');
    (8..=4096).contains(&text.len()) && text.bytes().all(byte)
}

/// Returns whether the text has three base64url parts, which is the form of Cal.com's access tokens.
fn is_jwt(token: &str) -> bool {
    let part = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    token.split('.').count() == 3 && token.split('.').all(part)
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Returns the hash by which credentials are distinguished: the first half of the SHA-256 of the parts.
pub fn credential_hash(parts: &[&str]) -> u128 {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    context.finish().as_ref().first_chunk().map_or(0, |half| u128::from_le_bytes(*half))
}
