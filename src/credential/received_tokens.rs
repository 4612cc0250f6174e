//! Token pairs in Cal.com's responses, and their lifetimes.
//!
//! A lifetime starts when the response arrives. Times in a response are therefore compared with Cal.com's own clock (`Date`),
//! and not with the local clock, which may be wrong.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use serde::Deserialize;

use crate::credential::managed_user::UserId;
use crate::credential::stored_token::{TokenPair, WipedStr};
use crate::credential::token_response::{LenientNumber, TokenFields};
use crate::headers::times;
use crate::secret::Secret;

/// Lifetime of an access token without a stated one, 30 min: the shorter of Cal.com's two lifetimes (FACTS §1).
const USUAL_LIFE: Duration = Duration::from_secs(30 * 60);

/// Upper bound of a stated lifetime, ten years, so that no sum of times overflows.
const LONGEST_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Time at which a response arrived.
#[derive(Debug, Clone, Copy)]
pub struct ReceivedAt {
    /// Local wall-clock time, in milliseconds since 1970.
    pub here: u64,
    /// Cal.com's wall-clock time, in seconds since 1970, if the response states it.
    pub there: Option<u64>,
}

impl ReceivedAt {
    /// Reads the time of a response with these headers, which arrived at `here`.
    pub fn of(headers: &HeaderMap, here: u64) -> Self {
        let there = times::date(headers).and_then(|date| date.duration_since(UNIX_EPOCH).ok());
        Self { here, there: there.map(|since| since.as_secs()) }
    }

    /// Returns the time from the response to `moment`, which is in seconds since 1970 by Cal.com's clock. The `iat` claim of
    /// the token is the best reading of that clock, because the token was issued for this response.
    fn until(&self, moment: u64, claims: &Claims) -> Duration {
        Duration::from_secs(moment.saturating_sub(claims.iat.0.map(whole).or(self.there).unwrap_or(self.here / 1000)))
    }
}

/// Claims of an access token. They are not verified, because the token has just come from Cal.com.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Claims {
    exp: LenientNumber,
    iat: LenientNumber,
    /// End of a managed user's token, in milliseconds since 1970.
    #[serde(rename = "expiresAt")]
    expires_at: LenientNumber,
    #[serde(rename = "ownerId")]
    owner_id: LenientNumber,
}

fn claims(token: &str) -> Claims {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok());
    payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default()
}

/// Returns the lifetime by the claim `exp` (RFC 7519 §4.1.4), for a response that states none (FACTS §1).
fn own_life(claims: &Claims, receipt: ReceivedAt) -> Duration {
    let end = claims.exp.0.or(claims.expires_at.0.map(|millis| millis / 1000.0));
    end.map_or(USUAL_LIFE, |end| receipt.until(whole(end), claims))
}

/// Rounds down to whole seconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
fn whole(seconds: f64) -> u64 {
    seconds as u64
}

/// Returns the pair of a response and the user that the response names. `None` if there is no access token that is valid in a
/// header.
fn pair(tokens: &TokenFields<'_>, sent: Option<&str>, receipt: ReceivedAt) -> Option<(TokenPair, Option<UserId>)> {
    let access = tokens.access.as_ref()?.as_str();
    let claims = claims(access);
    // A lifetime of zero is invalid: the token would be renewed again and again.
    let given = tokens.expires_in.filter(|seconds| *seconds >= 1.0);
    let lasting = given.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let ending = || tokens.expires_at.map(|end| receipt.until(whole(end), &claims));
    let refresh = tokens.refresh.as_ref().map(WipedStr::as_str).or(sent);
    let pair = TokenPair {
        lifetime: Some(lasting.or_else(ending).unwrap_or_else(|| own_life(&claims, receipt)).min(LONGEST_LIFE)),
        access: Secret::new(access).ok()?,
        // An invalid refresh token must not cost the access token, which is valid until it expires.
        refresh: refresh.and_then(|refresh| Secret::new(refresh).ok()),
        received_at: receipt.here,
    };
    Some((pair, tokens.user.or_else(|| claims.owner_id.0.map(whole).and_then(UserId::from_number))))
}

/// Reads a pair from the OAuth token endpoint. Without a new refresh token, `sent` stays valid (RFC 6749 §6). `None` if there
/// is no access token that is valid in a header.
pub fn from_oauth(body: &[u8], sent: Option<&str>, receipt: ReceivedAt) -> Option<TokenPair> {
    pair(&TokenFields::read(body)?, sent, receipt).map(|(pair, _)| pair)
}

/// Reads a managed user's pair, and the user if the response or the token names one.
pub fn from_managed_user(body: &[u8], receipt: ReceivedAt) -> Option<(TokenPair, Option<UserId>)> {
    pair(&TokenFields::read(body)?, None, receipt)
}

/// Reads a new API key. `None` if the response holds none. Every key begins with `cal_` (FACTS §1).
pub fn from_api_key(body: &[u8], receipt: ReceivedAt) -> Option<TokenPair> {
    let tokens = TokenFields::read(body)?;
    let key = tokens.api_key.as_ref()?.as_str();
    if key.strip_prefix("cal_").is_none_or(str::is_empty) {
        return None;
    }
    let access = Secret::new(key).ok()?;
    Some(TokenPair { access, refresh: None, received_at: receipt.here, lifetime: None })
}

/// Input of `calgate credentials import`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Import<'a> {
    access_token: &'a str,
    refresh_token: Option<&'a str>,
    expires_at: Option<u64>,
}

/// Parses the input of `calgate credentials import`: `access_token`, `refresh_token` and `expires_at` in epoch seconds.
///
/// # Errors
/// The reason why the input is invalid, without its text.
pub fn from_import(text: &[u8], now: u64) -> Result<TokenPair, &'static str> {
    let import: Import<'_> = serde_json::from_slice(text).map_err(
        |_| "it has to be JSON with access_token, refresh_token and expires_at (epoch seconds), and nothing else",
    )?;
    let receipt = ReceivedAt { here: now, there: None };
    // These tokens were issued some time ago, so `iat` is not the current time of Cal.com's clock.
    let claims = Claims { iat: LenientNumber(None), ..claims(import.access_token) };
    let lifetime = import.expires_at.map(|at| receipt.until(at, &claims));
    Ok(TokenPair {
        lifetime: Some(lifetime.unwrap_or_else(|| own_life(&claims, receipt))),
        access: Secret::new(import.access_token)?,
        refresh: import.refresh_token.map(Secret::new).transpose()?,
        received_at: now,
    })
}
