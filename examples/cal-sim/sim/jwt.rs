//! Tokens in the form of Cal.com: unique, with three parts and a readable payload.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::tokens::Holder;

/// Creates an access token. `exp` is the expiry of an OAuth token, and `expiresAt` that of a managed user's token in
/// milliseconds.
pub(super) fn access_token(holder: &Holder, now: Duration, ends: Duration) -> String {
    match holder {
        Holder::OAuth { client } => {
            let (iat, exp) = (now.as_secs(), ends.as_secs());
            token(&json!({ "token_type": "Access Token", "clientId": client, "iat": iat, "exp": exp }))
        }
        Holder::Managed { .. } => managed("access_token", holder, now, ends),
    }
}

/// Creates a refresh token.
pub(super) fn refresh_token(holder: &Holder, now: Duration, ends: Duration) -> String {
    match holder {
        Holder::OAuth { client } => {
            let (iat, exp) = (now.as_secs(), ends.as_secs());
            token(&json!({ "token_type": "Refresh Token", "clientId": client, "iat": iat, "exp": exp }))
        }
        Holder::Managed { .. } => managed("refresh_token", holder, now, ends),
    }
}

fn managed(kind: &str, holder: &Holder, now: Duration, ends: Duration) -> String {
    let (client, user) = match holder {
        Holder::Managed { client, user } => (client, *user),
        Holder::OAuth { client } => (client, 0),
    };
    let (iat, ends) = (now.as_secs(), u64::try_from(ends.as_millis()).unwrap_or(u64::MAX));
    token(&json!({ "type": kind, "clientId": client, "ownerId": user, "iat": iat, "expiresAt": ends }))
}

fn token(payload: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(payload), random_text())
}

/// Returns 32 random bytes as text.
pub(super) fn random_text() -> String {
    URL_SAFE_NO_PAD.encode(random::<32>())
}

/// Returns a random number from 0 to 1.
pub(super) fn random_part() -> f64 {
    f64::from(u32::from_le_bytes(random::<4>())) / (f64::from(u32::MAX) + 1.0)
}

/// Returns the S256 challenge of a PKCE verifier (RFC 7636 §4.2).
pub(super) fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes()))
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        // Random bytes only have to differ, but the simulation cannot continue without them.
        std::process::abort();
    }
    bytes
}
