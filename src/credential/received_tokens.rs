//! Token pairs as Cal.com's answers hold them, and how long they last.
//!
//! A life is counted from receipt, so the moments in an answer are held against the clock that wrote them, Cal.com's own
//! (`Date`), and not against ours, which may be wrong.

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

/// The life of an access token of which nothing is said: the shorter of the two that Cal.com has (FACTS §1).
const USUAL_LIFE: Duration = Duration::from_secs(30 * 60);

/// Upper bound of a life that an answer gives, ten years: no sum of times overflows.
const LONGEST_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// When an answer came.
#[derive(Debug, Clone, Copy)]
pub struct ReceivedAt {
    /// By this machine's calendar, in milliseconds since 1970.
    pub here: u64,
    /// By Cal.com's, in seconds since 1970, if the answer says so.
    pub there: Option<u64>,
}

impl ReceivedAt {
    /// Of an answer with these headers, which came at `here`.
    pub fn of(headers: &HeaderMap, here: u64) -> Self {
        let there = times::date(headers).and_then(|date| date.duration_since(UNIX_EPOCH).ok());
        Self { here, there: there.map(|since| since.as_secs()) }
    }

    /// How long it is from the answer to `moment`, in seconds since 1970 by Cal.com's calendar. That calendar is best
    /// read in the token itself, which was issued for this answer.
    fn until(&self, moment: u64, claims: &Claims) -> Duration {
        Duration::from_secs(moment.saturating_sub(claims.iat.0.map(whole).or(self.there).unwrap_or(self.here / 1000)))
    }
}

/// What a token says of itself; it is not verified, as Cal.com said it just now.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Claims {
    exp: LenientNumber,
    iat: LenientNumber,
    /// The end of a managed user's token, in milliseconds.
    #[serde(rename = "expiresAt")]
    expires_at: LenientNumber,
    #[serde(rename = "ownerId")]
    owner_id: LenientNumber,
}

fn claims(token: &str) -> Claims {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok());
    payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default()
}

/// The life of a token by its own `exp` (RFC 7519 §4.1.4), where an answer says nothing (FACTS §1).
fn own_life(claims: &Claims, receipt: ReceivedAt) -> Duration {
    let end = claims.exp.0.or(claims.expires_at.0.map(|millis| millis / 1000.0));
    end.map_or(USUAL_LIFE, |end| receipt.until(whole(end), claims))
}

/// Whole seconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
fn whole(seconds: f64) -> u64 {
    seconds as u64
}

/// The pair of a response, and the user that it names. `None` if there is no access token that a header can carry.
fn pair(tokens: &TokenFields<'_>, sent: Option<&str>, receipt: ReceivedAt) -> Option<(TokenPair, Option<UserId>)> {
    let access = tokens.access.as_ref()?.as_str();
    let claims = claims(access);
    // A life of nothing is an odd field: the token would be renewed for ever.
    let given = tokens.expires_in.filter(|seconds| *seconds >= 1.0);
    let lasting = given.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let ending = || tokens.expires_at.map(|end| receipt.until(whole(end), &claims));
    let refresh = tokens.refresh.as_ref().map(WipedStr::as_str).or(sent);
    let pair = TokenPair {
        lifetime: Some(lasting.or_else(ending).unwrap_or_else(|| own_life(&claims, receipt)).min(LONGEST_LIFE)),
        access: Secret::new(access).ok()?,
        // An odd one must not cost the access token, which serves until it ends.
        refresh: refresh.and_then(|refresh| Secret::new(refresh).ok()),
        received_at: receipt.here,
    };
    Some((pair, tokens.user.or_else(|| claims.owner_id.0.map(whole).and_then(UserId::from_number))))
}

/// A pair of the OAuth token endpoint. Without a new refresh token, `sent` stays good. `None` if there is no access token that
/// a header can carry.
pub fn from_oauth(body: &[u8], sent: Option<&str>, receipt: ReceivedAt) -> Option<TokenPair> {
    pair(&TokenFields::read(body)?, sent, receipt).map(|(pair, _)| pair)
}

/// A managed user's pair, and whose it is, if the answer or the token says so.
pub fn from_managed_user(body: &[u8], receipt: ReceivedAt) -> Option<(TokenPair, Option<UserId>)> {
    pair(&TokenFields::read(body)?, None, receipt)
}

/// A new API key. `None` if the response holds none: every key begins with `cal_` (FACTS §1).
pub fn from_api_key(body: &[u8], receipt: ReceivedAt) -> Option<TokenPair> {
    let tokens = TokenFields::read(body)?;
    let key = tokens.api_key.as_ref()?.as_str();
    if key.strip_prefix("cal_").is_none_or(str::is_empty) {
        return None;
    }
    let access = Secret::new(key).ok()?;
    Some(TokenPair { access, refresh: None, received_at: receipt.here, lifetime: None })
}

/// The text that a customer who keeps tokens elsewhere moves in with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Import<'a> {
    access_token: &'a str,
    refresh_token: Option<&'a str>,
    expires_at: Option<u64>,
}

/// Reads a pair as `calgate credentials import` takes it: `access_token`, `refresh_token`, `expires_at` in epoch seconds.
///
/// # Errors
/// What is wrong with it; never its text.
pub fn from_import(text: &[u8], now: u64) -> Result<TokenPair, &'static str> {
    let import: Import<'_> = serde_json::from_slice(text).map_err(
        |_| "it has to be JSON with access_token, refresh_token and expires_at (epoch seconds), and nothing else",
    )?;
    let receipt = ReceivedAt { here: now, there: None };
    // These tokens were issued some time ago, by a calendar that agrees with this one or is not known.
    let claims = Claims { iat: LenientNumber(None), ..claims(import.access_token) };
    let lifetime = import.expires_at.map(|at| receipt.until(at, &claims));
    Ok(TokenPair {
        lifetime: Some(lifetime.unwrap_or_else(|| own_life(&claims, receipt))),
        access: Secret::new(import.access_token)?,
        refresh: import.refresh_token.map(Secret::new).transpose()?,
        received_at: now,
    })
}
