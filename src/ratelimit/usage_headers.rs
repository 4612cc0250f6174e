//! Parses the rate-limit header fields of a response, in all known spellings.
//!
//! `X-RateLimit-{Limit,Remaining,Reset}-<Name>` is Cal.com's own (FACTS §2). The parser also reads the same fields without a
//! name, the fields `RateLimit-{Limit,Remaining,Reset}`, and the IETF's `RateLimit` and `RateLimit-Policy`. The latter have the
//! form of draft-ietf-httpapi-ratelimit-headers-07 (`limit=…, remaining=…, reset=…`) or of later drafts (`"name";r=…;t=…`,
//! `q=…`). [`crate::headers::times`] has the rule for times.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};
use smallvec::SmallVec;

use crate::headers::media;
use crate::headers::times::{Reference, TimeLeft};

/// Maximum limits that one response may report. A credential has one or two.
pub const MAX_NAMES: usize = 4;

/// Largest plausible limit.
const MAX_LIMIT: u64 = 1_000_000;

/// One limit in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitReading {
    /// Hash of the name, without regard to case.
    pub name: u64,
    /// Requests per window, if the response reports them.
    pub limit: Option<u32>,
    /// Remaining requests.
    pub remaining: u32,
    /// Time until the window or the block ends. The sender rounds it to whole seconds.
    pub reset: Duration,
}

/// All limits in a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitReadings {
    /// Each limit that is complete and plausible.
    pub limits: SmallVec<[LimitReading; 1]>,
    /// Whether some values were implausible.
    pub has_implausible: bool,
}

/// What a response means for its credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamOutcome {
    /// The limiter let the request pass, whatever its status is.
    Passed,
    /// No success, and no limits: Cal.com's limiter may not have counted the request (FACTS §2), or not have received it.
    Unclear,
    /// Cal.com's limiter refused the request.
    Refused {
        /// `Retry-After`, which Cal.com does not send today.
        retry_after: Option<Duration>,
    },
    /// The edge in front of Cal.com limits the rate. Its 429 has neither Cal.com's fields nor JSON, or its body says so.
    Edge {
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
}

/// A time that is ignored, because it is longer than any that Cal.com's limiter sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ignored {
    /// The field that contains it: `reset` or `retry-after`.
    pub field: &'static str,
    /// The time, in seconds.
    pub seconds: u64,
}

/// Rate-limit information in the head of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadReading {
    /// Meaning for the credential.
    pub outcome: UpstreamOutcome,
    /// Reported limits.
    pub readings: LimitReadings,
    /// A time that was ignored.
    pub ignored: Option<Ignored>,
}

/// One limit, as far as its fields have been read.
#[derive(Default)]
struct PartialReading<'a> {
    name: u64,
    limit: Option<u64>,
    remaining: Option<u64>,
    reset: Option<&'a str>,
}

/// Converts the times in a response.
struct TimeReader {
    reference: Reference,
    window: Duration,
    ignored: Option<Ignored>,
}

type PartialReadings<'a> = SmallVec<[PartialReading<'a>; 1]>;

/// Parses the head of a response. `wall` is the calendar time, for absolute times in responses without a `Date`. `window` is the
/// length of Cal.com's windows.
pub fn parse(status: StatusCode, headers: &HeaderMap, wall: SystemTime, window: Duration) -> HeadReading {
    let mut found = PartialReadings::new();
    for (field, value) in headers {
        let Some(rest) = limit_field(field.as_str()) else { continue };
        let value = value.to_str().unwrap_or_default();
        match rest.strip_prefix('-') {
            None if rest.is_empty() => structured(value, &mut found),
            Some("policy") => structured(value, &mut found),
            Some(rest) => single(rest, value, &mut found),
            None => {}
        }
    }
    let mut readings = LimitReadings::default();
    if found.is_empty() && status != StatusCode::TOO_MANY_REQUESTS {
        let outcome = if status.is_success() { UpstreamOutcome::Passed } else { UpstreamOutcome::Unclear };
        return HeadReading { outcome, readings, ignored: None };
    }
    let mut times = TimeReader { reference: Reference::of(headers, wall), window, ignored: None };
    for parts in &found {
        match parts.seen(&mut times) {
            Some(seen) => readings.limits.push(seen),
            None => readings.has_implausible |= parts.remaining.is_some(),
        }
    }
    let outcome = outcome(status, headers, found.is_empty(), &mut times);
    HeadReading { outcome, readings, ignored: times.ignored }
}

/// Returns the rest of a field name after `RateLimit`.
fn limit_field(name: &str) -> Option<&str> {
    name.strip_prefix("x-").unwrap_or(name).strip_prefix("ratelimit")
}

/// Returns whether the edge may have sent the response, so that only its body tells whether it limits the rate. A 429 tells so
/// itself. Cal.com's limiter adds its fields to every error that it counted (FACTS §2).
pub fn is_body_decisive(status: StatusCode, headers: &HeaderMap) -> bool {
    let is_error = status.is_client_error() || status.is_server_error();
    is_error
        && status != StatusCode::TOO_MANY_REQUESTS
        && headers.keys().all(|name| limit_field(name.as_str()).is_none())
}

fn outcome(status: StatusCode, headers: &HeaderMap, silent: bool, times: &mut TimeReader) -> UpstreamOutcome {
    if status != StatusCode::TOO_MANY_REQUESTS {
        return UpstreamOutcome::Passed;
    }
    let retry_after = times.retry_after(headers);
    if silent && !media::is_json(headers) {
        UpstreamOutcome::Edge { retry_after }
    } else {
        UpstreamOutcome::Refused { retry_after }
    }
}

/// Reads `Limit`, `Limit-<Name>` and similar fields: one number of one limit.
fn single<'a>(rest: &str, value: &'a str, found: &mut PartialReadings<'a>) {
    let (part, name) = rest.split_once('-').unwrap_or((rest, ""));
    // Drafts append the policy to the number: `100, 100;w=60`.
    let digits = value.split([',', ';']).next().unwrap_or_default().trim();
    // A value that is no number is kept as an implausible one.
    let number = Some(digits.parse::<f64>().ok().filter(|n| *n >= 0.0).map_or(u64::MAX, ceiling));
    let Some(parts) = parts(found, name_hash(name)) else { return };
    match part {
        "limit" => parts.limit = number,
        "remaining" => parts.remaining = number,
        // A date contains a comma.
        "reset" if !digits.starts_with(|c: char| c.is_ascii_digit()) => parts.reset = Some(value.trim()),
        "reset" => parts.reset = Some(digits),
        _ => {}
    }
}

/// Reads `RateLimit` and `RateLimit-Policy`: items with parameters, or the plain parameters of draft 07.
fn structured<'a>(value: &'a str, found: &mut PartialReadings<'a>) {
    for item in value.split(',') {
        let mut words = item.split(';').map(str::trim);
        let first = words.next().unwrap_or_default();
        let quoted = first.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
        let name = quoted.unwrap_or_default();
        let plain = if quoted.is_some() { None } else { Some(first) };
        for word in plain.into_iter().chain(words) {
            let Some((key, digits)) = word.split_once('=') else { continue };
            let Some(parts) = parts(found, name_hash(name)) else { return };
            let digits = digits.trim();
            let number = Some(digits.parse().unwrap_or(u64::MAX));
            match key {
                "limit" | "q" => parts.limit = number,
                "remaining" | "r" => parts.remaining = number,
                "reset" | "t" => parts.reset = Some(digits),
                _ => {}
            }
        }
    }
}

fn parts<'f, 'a>(found: &'f mut PartialReadings<'a>, name: u64) -> Option<&'f mut PartialReading<'a>> {
    let known = found.iter().position(|parts| parts.name == name);
    if known.is_none() && found.len() < MAX_NAMES {
        found.push(PartialReading { name, ..PartialReading::default() });
    }
    match known {
        Some(index) => found.get_mut(index),
        None => found.last_mut().filter(|parts| parts.name == name),
    }
}

/// Returns the time in `Retry-After`, by the rules of [`parse`].
pub fn retry_after(headers: &HeaderMap, wall: SystemTime, window: Duration) -> (Option<Duration>, Option<Ignored>) {
    let mut times = TimeReader { reference: Reference::of(headers, wall), window, ignored: None };
    (times.retry_after(headers), times.ignored)
}

impl TimeReader {
    fn retry_after(&mut self, headers: &HeaderMap) -> Option<Duration> {
        let left = self.reference.retry_after(headers, self.window)?;
        if let TimeLeft::TooLong(seconds) = left {
            self.ignored = Some(Ignored { field: "retry-after", seconds });
        }
        left.trusted()
    }
}

impl PartialReading<'_> {
    /// Returns the limit, if it is complete and plausible. A reset that is too long is replaced by a whole window: the remaining
    /// count holds at least until then.
    fn seen(&self, times: &mut TimeReader) -> Option<LimitReading> {
        let limit = match self.limit {
            Some(limit) => Some(u32::try_from(limit).ok().filter(|&n| n >= 1 && limit <= MAX_LIMIT)?),
            None => None,
        };
        let remaining = u32::try_from(self.remaining?).ok().filter(|&n| u64::from(n) <= MAX_LIMIT)?;
        if limit.is_some_and(|limit| remaining > limit) {
            return None;
        }
        let reset = match times.reference.time_left(self.reset?, times.window)? {
            TimeLeft::Trusted(left) => left,
            TimeLeft::TooLong(seconds) => {
                times.ignored = Some(Ignored { field: "reset", seconds });
                times.window
            }
        };
        Some(LimitReading { name: self.name, limit, remaining, reset })
    }
}

/// Returns the FNV-1a hash of a name in lower case. Names are only compared, never shown.
pub fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and `as` saturates")]
fn ceiling(number: f64) -> u64 {
    number.ceil() as u64
}
