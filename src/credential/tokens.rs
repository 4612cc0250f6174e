//! Token pairs as Cal.com's answers hold them, and how long they last.
//!
//! A life is counted from receipt, so the moments in an answer are held against the clock that wrote them, Cal.com's own
//! (`Date`), and not against ours, which may be wrong.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use serde::Deserialize;

use super::entry::Pair;
use super::managed::UserId;
use crate::headers::times;
use crate::secret::Secret;

/// The life of an access token of which nothing is said: the shorter of the two that Cal.com has (FACTS §1).
const USUAL_LIFE: Duration = Duration::from_secs(30 * 60);

/// When an answer came.
#[derive(Debug, Clone, Copy)]
pub struct Receipt {
    /// By this machine's calendar, in milliseconds since 1970.
    pub here: u64,
    /// By Cal.com's, in seconds since 1970, if the answer says so.
    pub there: Option<u64>,
}

impl Receipt {
    /// Of an answer with these headers, which came at `here`.
    pub fn of(headers: &HeaderMap, here: u64) -> Self {
        let there = times::date(headers).and_then(|date| date.duration_since(UNIX_EPOCH).ok());
        Self { here, there: there.map(|since| since.as_secs()) }
    }

    /// How long it is from the answer to `moment`, in seconds since 1970 by Cal.com's calendar. That calendar is best
    /// read in the token itself, which was issued for this answer.
    fn until(&self, moment: u64, claims: &Claims) -> Duration {
        Duration::from_secs(moment.saturating_sub(claims.iat.or(self.there).unwrap_or(self.here / 1000)))
    }
}

/// What a token says of itself; it is not verified, as Cal.com said it just now.
#[derive(Debug, Default, Deserialize)]
struct Claims {
    exp: Option<u64>,
    iat: Option<u64>,
    #[serde(rename = "ownerId")]
    owner_id: Option<u64>,
}

fn claims(token: &str) -> Claims {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok());
    payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default()
}

/// The life of a token by its own `exp` (RFC 7519 §4.1.4), where an answer says nothing (FACTS §1).
fn own_life(claims: &Claims, receipt: Receipt) -> Duration {
    claims.exp.map_or(USUAL_LIFE, |exp| receipt.until(exp, claims))
}

/// A pair of the OAuth token endpoint. `None` if a token is nothing that a header can carry.
pub fn of_oauth(access: &str, refresh: Option<&str>, expires_in: Option<Duration>, receipt: Receipt) -> Option<Pair> {
    Some(Pair {
        lifetime: Some(expires_in.unwrap_or_else(|| own_life(&claims(access), receipt))),
        access: Secret::new(access).ok()?,
        refresh: refresh.map(Secret::new).transpose().ok()?,
        received_at: receipt.here,
    })
}

/// The tokens of a managed user, as three operations answer them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManagedKeys<'a> {
    access_token: &'a str,
    refresh_token: &'a str,
    access_token_expires_at: Option<u64>,
    user: Option<ManagedUser>,
}

#[derive(Deserialize)]
struct ManagedUser {
    id: u64,
}

#[derive(Deserialize)]
struct Success<T> {
    data: T,
}

/// A managed user's pair, and whose it is, if the answer or the token says so. Moments are epoch milliseconds.
pub fn of_managed(body: &[u8], receipt: Receipt) -> Option<(Pair, Option<UserId>)> {
    let Success { data: keys } = serde_json::from_slice::<Success<ManagedKeys<'_>>>(body).ok()?;
    let claims = claims(keys.access_token);
    let lifetime = keys.access_token_expires_at.map(|at| receipt.until(at / 1000, &claims));
    let user = keys.user.map(|user| user.id).or(claims.owner_id).and_then(UserId::of_number);
    let pair = Pair {
        access: Secret::new(keys.access_token).ok()?,
        refresh: Some(Secret::new(keys.refresh_token).ok()?),
        received_at: receipt.here,
        lifetime: Some(lifetime.unwrap_or_else(|| own_life(&claims, receipt))),
    };
    Some((pair, user))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewKey<'a> {
    api_key: &'a str,
}

/// A new API key.
pub fn of_api_key(body: &[u8], receipt: Receipt) -> Option<Pair> {
    let Success { data: key } = serde_json::from_slice::<Success<NewKey<'_>>>(body).ok()?;
    let access = Secret::new(key.api_key).ok()?;
    Some(Pair { access, refresh: None, received_at: receipt.here, lifetime: None })
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
pub fn of_import(text: &[u8], now: u64) -> Result<Pair, &'static str> {
    let import: Import<'_> = serde_json::from_slice(text).map_err(
        |_| "it has to be JSON with access_token, refresh_token and expires_at (epoch seconds), and nothing else",
    )?;
    let receipt = Receipt { here: now, there: None };
    // These tokens were issued some time ago, by a calendar that agrees with this one or is not known.
    let claims = Claims { iat: None, ..claims(import.access_token) };
    let lifetime = import.expires_at.map(|at| receipt.until(at, &claims));
    Ok(Pair {
        lifetime: Some(lifetime.unwrap_or_else(|| own_life(&claims, receipt))),
        access: Secret::new(import.access_token)?,
        refresh: import.refresh_token.map(Secret::new).transpose()?,
        received_at: now,
    })
}
