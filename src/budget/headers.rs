//! What an answer's header fields say of Cal.com's limits, in whichever of the known spellings.
//!
//! `X-RateLimit-{Limit,Remaining,Reset}-<Name>` is Cal.com's own (FACTS §2). Also read are the same without a name, the
//! fields `RateLimit-{Limit,Remaining,Reset}`, and the IETF's `RateLimit` and `RateLimit-Policy` in the form of
//! draft-ietf-httpapi-ratelimit-headers-07 (`limit=…, remaining=…, reset=…`) and of later ones (`"name";r=…;t=…`, `q=…`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use smallvec::SmallVec;

/// Limits that one answer may tell of; a credential has one or two.
pub const MOST_NAMES: usize = 4;

/// A reset above this is a moment, in seconds since 1970, not a number of seconds.
const EPOCH_FROM: u64 = 1_000_000_000;

/// A limit, or a time to its reset, above this says nothing that can be used.
const MOST_LIMIT: u64 = 1_000_000;
const MOST_RESET: u64 = 24 * 3600;

/// What an answer says of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Which: the name's hash, without regard to case.
    pub name: u64,
    /// Requests a window, where it is told.
    pub limit: Option<u32>,
    /// What is left of them.
    pub remaining: u32,
    /// Until the window, or the block, is over; rounded to whole seconds by who sent it.
    pub reset: Duration,
}

/// What an answer says of all limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Each limit that was told whole and makes sense.
    pub limits: SmallVec<[Seen; 1]>,
    /// Whether some values made no sense.
    pub absurd: bool,
}

/// What an answer means for the credential it was given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The limiter let the request pass, whatever came of it.
    Passed,
    /// Cal.com's limiter refused it.
    Refused {
        /// `Retry-After`, which Cal.com does not send today.
        retry_after: Option<Duration>,
    },
    /// The edge in front of Cal.com refused it: 429 or 403, and neither Cal.com's headers nor its JSON.
    Edge {
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
}

/// What of a limit has been found so far.
#[derive(Default)]
struct Parts {
    name: u64,
    limit: Option<u64>,
    remaining: Option<u64>,
    reset: Option<u64>,
}

type Found = SmallVec<[Parts; 1]>;

/// Reads an answer's head. `wall` is the calendar's now, for resets that are moments.
pub fn read(status: StatusCode, headers: &HeaderMap, wall: SystemTime) -> (Verdict, Told) {
    let mut found = Found::new();
    for (field, value) in headers {
        let field = field.as_str();
        let Some(rest) = field.strip_prefix("x-").unwrap_or(field).strip_prefix("ratelimit") else { continue };
        let value = value.to_str().unwrap_or_default();
        match rest.strip_prefix('-') {
            None if rest.is_empty() => structured(value, &mut found),
            Some("policy") => structured(value, &mut found),
            Some(rest) => single(rest, value, &mut found),
            None => {}
        }
    }
    let told = Told {
        absurd: found.iter().any(|parts| parts.remaining.is_some() && parts.seen(wall).is_none()),
        limits: found.iter().filter_map(|parts| parts.seen(wall)).collect(),
    };
    (verdict(status, headers, found.is_empty()), told)
}

fn verdict(status: StatusCode, headers: &HeaderMap, silent: bool) -> Verdict {
    let json = headers.get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/json"));
    let after = || headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs);
    let from_edge = silent && !json;
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::FORBIDDEN if from_edge => Verdict::Edge { retry_after: after() },
        StatusCode::TOO_MANY_REQUESTS => {
            Verdict::Refused { retry_after: after().filter(|wait| wait.as_secs() <= MOST_RESET) }
        }
        _ => Verdict::Passed,
    }
}

/// `Limit`, `Limit-<Name>` and their like: one number of one limit.
fn single(rest: &str, value: &str, found: &mut Found) {
    let (part, name) = rest.split_once('-').unwrap_or((rest, ""));
    // Drafts append the policy to the number: `100, 100;w=60`.
    let digits = value.split([',', ';']).next().unwrap_or_default().trim();
    // What cannot be a number is kept as one that makes no sense.
    let number = Some(digits.parse::<f64>().ok().filter(|n| *n >= 0.0).map_or(u64::MAX, ceiling));
    let Some(parts) = parts(found, name_hash(name)) else { return };
    match part {
        "limit" => parts.limit = number,
        "remaining" => parts.remaining = number,
        "reset" => parts.reset = number,
        _ => {}
    }
}

/// `RateLimit` and `RateLimit-Policy`: items with parameters, or draft 07's plain parameters.
fn structured(value: &str, found: &mut Found) {
    for item in value.split(',') {
        let mut words = item.split(';').map(str::trim);
        let first = words.next().unwrap_or_default();
        let quoted = first.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
        let name = quoted.unwrap_or_default();
        let plain = if quoted.is_some() { None } else { Some(first) };
        for word in plain.into_iter().chain(words) {
            let Some((key, digits)) = word.split_once('=') else { continue };
            let Some(parts) = parts(found, name_hash(name)) else { return };
            let number = Some(digits.trim().parse().unwrap_or(u64::MAX));
            match key {
                "limit" | "q" => parts.limit = number,
                "remaining" | "r" => parts.remaining = number,
                "reset" | "t" => parts.reset = number,
                _ => {}
            }
        }
    }
}

fn parts(found: &mut Found, name: u64) -> Option<&mut Parts> {
    let known = found.iter().position(|parts| parts.name == name);
    if known.is_none() && found.len() < MOST_NAMES {
        found.push(Parts { name, ..Parts::default() });
    }
    match known {
        Some(index) => found.get_mut(index),
        None => found.last_mut().filter(|parts| parts.name == name),
    }
}

impl Parts {
    /// The limit, if it was told whole and makes sense.
    fn seen(&self, wall: SystemTime) -> Option<Seen> {
        let limit = match self.limit {
            Some(limit) => Some(u32::try_from(limit).ok().filter(|&n| n >= 1 && limit <= MOST_LIMIT)?),
            None => None,
        };
        let remaining = u32::try_from(self.remaining?).ok().filter(|&n| u64::from(n) <= MOST_LIMIT)?;
        if limit.is_some_and(|limit| remaining > limit) {
            return None;
        }
        let reset = match self.reset? {
            moment if moment > EPOCH_FROM => {
                let now = wall.duration_since(UNIX_EPOCH).ok()?.as_secs();
                // Milliseconds, where seconds would be thousands of years away.
                let moment = if moment > EPOCH_FROM * 1000 { moment.div_ceil(1000) } else { moment };
                moment.saturating_sub(now)
            }
            seconds => seconds,
        };
        (reset <= MOST_RESET).then_some(Seen { name: self.name, limit, remaining, reset: Duration::from_secs(reset) })
    }
}

/// FNV-1a of a name in lower case: names are compared, never shown.
pub fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and `as` saturates")]
fn ceiling(number: f64) -> u64 {
    number.ceil() as u64
}
