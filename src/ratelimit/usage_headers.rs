//! Parses the rate-limit header fields of a response, in all known spellings.
//!
//! `X-RateLimit-{Limit,Remaining,Reset}-<Name>` is Cal.com's own (FACTS §2). Also read are the same without a name, the
//! fields `RateLimit-{Limit,Remaining,Reset}`, and the IETF's `RateLimit` and `RateLimit-Policy` in the form of
//! draft-ietf-httpapi-ratelimit-headers-07 (`limit=…, remaining=…, reset=…`) and of later ones (`"name";r=…;t=…`, `q=…`).
//! Times are read by the rule of [`crate::headers::times`].

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};
use smallvec::SmallVec;

use crate::headers::media;
use crate::headers::times::{Reference, TimeLeft};

/// Limits that one answer may tell of; a credential has one or two.
pub const MAX_NAMES: usize = 4;

/// A limit above this says nothing that can be used.
const MAX_LIMIT: u64 = 1_000_000;

/// What an answer says of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitReading {
    /// Which: the name's hash, without regard to case.
    pub name: u64,
    /// Requests a window, where it is readings.
    pub limit: Option<u32>,
    /// What is left of them.
    pub remaining: u32,
    /// Until the window, or the block, is over; rounded to whole seconds by who sent it.
    pub reset: Duration,
}

/// What an answer says of all limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitReadings {
    /// Each limit that was readings whole and makes sense.
    pub limits: SmallVec<[LimitReading; 1]>,
    /// Whether some values made no sense.
    pub has_implausible: bool,
}

/// What an answer means for the credential it was given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamOutcome {
    /// The limiter let the request pass, whatever came of it.
    Passed,
    /// No success, and no word of limits: Cal.com's limiter may not have counted it (FACTS §2), or not have seen it.
    Unclear,
    /// Cal.com's limiter refused it.
    Refused {
        /// `Retry-After`, which Cal.com does not send today.
        retry_after: Option<Duration>,
    },
    /// The edge in front of Cal.com limits the rate: a 429 with neither Cal.com's headers nor its JSON, or a body that says so.
    Edge {
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
}

/// A time that is not used, because it is longer than any that Cal.com's limiter gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ignored {
    /// The field that has it: `reset` or `retry-after`.
    pub field: &'static str,
    /// The time, in seconds.
    pub seconds: u64,
}

/// What an answer's head says about rates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadReading {
    /// What it means.
    pub outcome: UpstreamOutcome,
    /// The limits that it tells of.
    pub readings: LimitReadings,
    /// A time of it that is not used.
    pub ignored: Option<Ignored>,
}

/// What of a limit has been found so far.
#[derive(Default)]
struct PartialReading<'a> {
    name: u64,
    limit: Option<u64>,
    remaining: Option<u64>,
    reset: Option<&'a str>,
}

/// What the times of an answer are read by.
struct TimeReader {
    reference: Reference,
    window: Duration,
    ignored: Option<Ignored>,
}

type PartialReadings<'a> = SmallVec<[PartialReading<'a>; 1]>;

/// Reads an answer's head. `wall` is the calendar's now, for absolute times in answers without a `Date`; `window` is how long
/// Cal.com's windows last.
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

/// What follows `RateLimit` in the name of a field about limits.
fn limit_field(name: &str) -> Option<&str> {
    name.strip_prefix("x-").unwrap_or(name).strip_prefix("ratelimit")
}

/// Whether the edge may have answered, and its body has to tell whether that is about rate. A 429 tells so itself. Cal.com's
/// limiter puts its fields on every error that it counted (FACTS §2).
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

/// `Limit`, `Limit-<Name>` and their like: one number of one limit.
fn single<'a>(rest: &str, value: &'a str, found: &mut PartialReadings<'a>) {
    let (part, name) = rest.split_once('-').unwrap_or((rest, ""));
    // Drafts append the policy to the number: `100, 100;w=60`.
    let digits = value.split([',', ';']).next().unwrap_or_default().trim();
    // What cannot be a number is kept as one that makes no sense.
    let number = Some(digits.parse::<f64>().ok().filter(|n| *n >= 0.0).map_or(u64::MAX, ceiling));
    let Some(parts) = parts(found, name_hash(name)) else { return };
    match part {
        "limit" => parts.limit = number,
        "remaining" => parts.remaining = number,
        // A date has a comma of its own.
        "reset" if !digits.starts_with(|c: char| c.is_ascii_digit()) => parts.reset = Some(value.trim()),
        "reset" => parts.reset = Some(digits),
        _ => {}
    }
}

/// `RateLimit` and `RateLimit-Policy`: items with parameters, or draft 07's plain parameters.
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

/// The time in `Retry-After`, as [`parse`] reads it.
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
    /// The limit, if it was readings whole and makes sense. A reset that is not trusted is taken for that of a window which has
    /// just begun: what is left holds at least until then.
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
