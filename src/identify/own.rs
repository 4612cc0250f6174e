//! Passthrough: callers that bring a Cal.com credential of their own.

use aws_lc_rs::digest::{Context, SHA256};
use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, HeaderValue};

use super::{bearer_token, single};
use crate::headers::{CLIENT_ID, SECRET_KEY};
use crate::refusal::Refusal;

/// The headers that a Cal.com credential comes in.
pub(super) const HEADERS: [HeaderName; 3] = [AUTHORIZATION, CLIENT_ID, SECRET_KEY];

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
pub struct OwnCredential {
    /// The headers to send upstream.
    pub headers: OwnHeaders,
    /// What its bucket is keyed by: half of its SHA-256.
    pub key: u128,
}

/// The forms a caller's own credential has.
#[derive(Clone)]
pub enum OwnHeaders {
    /// An API key or an access token: the `Authorization` value to send.
    Bearer(HeaderValue),
    /// A platform client's id and secret.
    Client {
        /// `x-cal-client-id`
        id: HeaderValue,
        /// `x-cal-secret-key`
        secret: HeaderValue,
    },
}

impl std::fmt::Debug for OwnCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnCredential(redacted)")
    }
}

impl Passthrough {
    /// Reads the caller's credential.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`] for a form that Cal.com has no such credential of, or one that is switched off;
    /// [`Refusal::BadHeader`] where a bearer and client headers are both there, of which Cal.com would authenticate by
    /// one and count by the other (FACTS §1).
    pub(super) fn read(self, headers: &HeaderMap) -> Result<OwnCredential, Refusal> {
        let authorization = single(headers, &AUTHORIZATION, "Authorization occurs more than once")?;
        let id = single(headers, &CLIENT_ID, "x-cal-client-id occurs more than once")?;
        let secret = single(headers, &SECRET_KEY, "x-cal-secret-key occurs more than once")?;
        match (authorization, id, secret) {
            (Some(value), None, None) => self.bearer(value),
            (None, Some(id), Some(secret)) => client(id, secret),
            (Some(_), _, _) => Err(Refusal::BadHeader("Authorization and x-cal-* client headers cannot both be sent")),
            (None, _, _) => Err(Refusal::Unauthenticated),
        }
    }

    fn bearer(self, authorization: &str) -> Result<OwnCredential, Refusal> {
        let token = bearer_token(authorization).filter(|t| is_token(t)).ok_or(Refusal::Unauthenticated)?;
        let is_taken = if token.starts_with(LIVE_API_KEY) {
            self.live_keys
        } else if token.starts_with(API_KEY) {
            self.test_keys
        } else {
            is_jwt(token)
        };
        if !is_taken {
            return Err(Refusal::Unauthenticated);
        }
        let headers = OwnHeaders::Bearer(sensitive(&format!("Bearer {token}"))?);
        Ok(OwnCredential { headers, key: credential_key(&[token]) })
    }
}

fn client(id: &str, secret: &str) -> Result<OwnCredential, Refusal> {
    if !is_token(id) || !is_token(secret) {
        return Err(Refusal::Unauthenticated);
    }
    let headers = OwnHeaders::Client { id: sensitive(id)?, secret: sensitive(secret)? };
    Ok(OwnCredential { headers, key: credential_key(&[id, secret]) })
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

fn sensitive(text: &str) -> Result<HeaderValue, Refusal> {
    let mut value = HeaderValue::from_str(text).map_err(|_| Refusal::Unauthenticated)?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a credential is told apart by: half of the SHA-256 of its parts.
pub fn credential_key(parts: &[&str]) -> u128 {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    context.finish().as_ref().first_chunk().map_or(0, |half| u128::from_le_bytes(*half))
}
