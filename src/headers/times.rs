//! Times in response headers: their units, their reference, and how far they are trusted.
//!
//! A number of 10⁹ or more is a timestamp since 1970 in seconds, milliseconds, microseconds or nanoseconds: the unit that
//! gives a date of this age. A smaller number is a duration in seconds. A timestamp is compared with the `Date` of its
//! response, because the clock of this machine may be wrong. A duration of more than [`TRUSTED_WINDOWS`] windows is
//! ignored.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

/// Longest trusted duration, in windows. Cal.com's windows and blocks last one window each (FACTS §2).
pub const TRUSTED_WINDOWS: u32 = 3;

/// Smallest number that is a timestamp and not a duration.
const MIN_TIMESTAMP: f64 = 1e9;

/// Time to which the timestamps of one response are relative.
#[derive(Debug, Clone, Copy)]
pub struct Reference {
    now: Duration,
}

/// Duration that was left when the response was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeLeft {
    /// The duration, rounded up to whole seconds.
    Trusted(Duration),
    /// Seconds of a duration that is longer than [`TRUSTED_WINDOWS`] windows.
    TooLong(u64),
}

impl TimeLeft {
    /// Returns the duration, if it is trusted.
    pub fn trusted(self) -> Option<Duration> {
        match self {
            Self::Trusted(left) => Some(left),
            Self::TooLong(_) => None,
        }
    }
}

/// Parses `Date` in any of the three forms of RFC 9110 §5.6.7.
pub fn date(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}

impl Reference {
    /// Uses the `Date` of a response, or else `wall`, the time of this machine.
    pub fn of(headers: &HeaderMap, wall: SystemTime) -> Self {
        Self { now: since_1970(date(headers).unwrap_or(wall)) }
    }

    /// Parses the value of `X-RateLimit-Reset` or a similar field, where a window lasts `window`. Returns `None` if the
    /// value is not a time. Senders do not agree on the unit: a number that is too large for seconds, and fits into a
    /// window as milliseconds, is in milliseconds.
    pub fn time_left(&self, value: &str, window: Duration) -> Option<TimeLeft> {
        let Some(number) = number(value) else { return self.until_date(value, window) };
        if number >= MIN_TIMESTAMP {
            return Some(limited(timestamp(number).saturating_sub(self.now), window));
        }
        let as_seconds = Duration::from_secs_f64(number);
        let as_milliseconds = as_seconds / 1000;
        let fits = as_seconds > max_time(window) && as_milliseconds <= window + Duration::from_secs(1);
        Some(limited(if fits { as_milliseconds } else { as_seconds }, window))
    }

    /// Parses `Retry-After`, which has seconds or a date (RFC 9110 §10.2.3). Returns `None` if it is absent or neither.
    pub fn retry_after(&self, headers: &HeaderMap, window: Duration) -> Option<TimeLeft> {
        let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        match number(value) {
            Some(seconds) if seconds < MIN_TIMESTAMP => Some(limited(Duration::from_secs_f64(seconds), window)),
            Some(_) => self.time_left(value, window),
            None => self.until_date(value, window),
        }
    }

    fn until_date(&self, value: &str, window: Duration) -> Option<TimeLeft> {
        let moment = httpdate::parse_http_date(value).ok()?;
        Some(limited(since_1970(moment).saturating_sub(self.now), window))
    }
}

/// Converts a timestamp in seconds, milliseconds, microseconds or nanoseconds to the time since 1970.
pub fn timestamp(number: f64) -> Duration {
    let per_second = match number {
        n if n < 1e11 => 1.0,
        n if n < 1e14 => 1e3,
        n if n < 1e17 => 1e6,
        _ => 1e9,
    };
    Duration::try_from_secs_f64(number / per_second).unwrap_or(Duration::MAX)
}

/// Parses a number without a sign and without an exponent, of at most 24 characters.
fn number(value: &str) -> Option<f64> {
    let plain = value.bytes().all(|b| b.is_ascii_digit() || b == b'.') && value.len() <= 24;
    plain.then(|| value.parse::<f64>().ok()).flatten()
}

fn max_time(window: Duration) -> Duration {
    window.saturating_mul(TRUSTED_WINDOWS)
}

fn limited(left: Duration, window: Duration) -> TimeLeft {
    let seconds = left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0));
    let rounded_up = Duration::from_secs(seconds);
    // A limit below 2 s would not allow for the rounding of the sender.
    let most = max_time(window).max(Duration::from_secs(2));
    if rounded_up <= most { TimeLeft::Trusted(rounded_up) } else { TimeLeft::TooLong(seconds) }
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}
