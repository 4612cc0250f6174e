//! Times that an upstream sends: one rule for their units, their reference and how far they are trusted.
//!
//! A number of 10⁹ or more is a moment since 1970: seconds, milliseconds, microseconds or nanoseconds, whichever gives a year
//! of this age. A smaller number is a time left in seconds. A moment is compared with the `Date` of the response that
//! carries it, because the clock of this machine may be wrong. A time left beyond [`TRUSTED_WINDOWS`] windows is not used.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

/// Windows that the longest trusted time lasts. Cal.com's windows and blocks last one window each (FACTS §2).
pub const TRUSTED_WINDOWS: u32 = 3;

/// The least number that is a moment since 1970 and not a time left.
const LEAST_MOMENT: f64 = 1e9;

/// The moment to which the absolute times of one response are relative.
#[derive(Debug, Clone, Copy)]
pub struct Reference {
    now: Duration,
}

/// A time that was left when the response was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeLeft {
    /// Rounded up to whole seconds.
    Trusted(Duration),
    /// So many seconds are more than [`TRUSTED_WINDOWS`] windows.
    TooLong(u64),
}

impl TimeLeft {
    /// The time, if it is trusted.
    pub fn trusted(self) -> Option<Duration> {
        match self {
            Self::Trusted(left) => Some(left),
            Self::TooLong(_) => None,
        }
    }
}

/// The moment in `Date`, in any of the three forms of RFC 9110 §5.6.7.
pub fn date(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}

impl Reference {
    /// The `Date` of a response, or `wall`, this machine's own time, where the response has none.
    pub fn of(headers: &HeaderMap, wall: SystemTime) -> Self {
        Self { now: since_1970(date(headers).unwrap_or(wall)) }
    }

    /// The time left that the value of `X-RateLimit-Reset` or a similar field tells, where windows last `window`; `None` if
    /// the value is no time. Senders do not agree on the unit: a number too large for seconds that fits into a window as
    /// milliseconds is milliseconds.
    pub fn time_left(&self, value: &str, window: Duration) -> Option<TimeLeft> {
        let Some(number) = number(value) else { return self.until_date(value, window) };
        if number >= LEAST_MOMENT {
            return Some(within(moment(number).saturating_sub(self.now), window));
        }
        let as_seconds = Duration::from_secs_f64(number);
        let as_milliseconds = as_seconds / 1000;
        let fits = as_seconds > longest(window) && as_milliseconds <= window + Duration::from_secs(1);
        Some(within(if fits { as_milliseconds } else { as_seconds }, window))
    }

    /// The time left by `Retry-After`, which has seconds or a date (RFC 9110 §10.2.3); `None` if it is absent or neither.
    pub fn retry_after(&self, headers: &HeaderMap, window: Duration) -> Option<TimeLeft> {
        let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        match number(value) {
            Some(seconds) if seconds < LEAST_MOMENT => Some(within(Duration::from_secs_f64(seconds), window)),
            Some(_) => self.time_left(value, window),
            None => self.until_date(value, window),
        }
    }

    fn until_date(&self, value: &str, window: Duration) -> Option<TimeLeft> {
        let moment = httpdate::parse_http_date(value).ok()?;
        Some(within(since_1970(moment).saturating_sub(self.now), window))
    }
}

/// A moment since 1970 that is given as a number of seconds, milliseconds, microseconds or nanoseconds.
pub fn moment(number: f64) -> Duration {
    let per_second = match number {
        n if n < 1e11 => 1.0,
        n if n < 1e14 => 1e3,
        n if n < 1e17 => 1e6,
        _ => 1e9,
    };
    Duration::try_from_secs_f64(number / per_second).unwrap_or(Duration::MAX)
}

/// A number without a sign and without an exponent, of a length that a time can have.
fn number(value: &str) -> Option<f64> {
    let plain = value.bytes().all(|b| b.is_ascii_digit() || b == b'.') && value.len() <= 24;
    plain.then(|| value.parse::<f64>().ok()).flatten()
}

fn longest(window: Duration) -> Duration {
    window.saturating_mul(TRUSTED_WINDOWS)
}

fn within(left: Duration, window: Duration) -> TimeLeft {
    let seconds = left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0));
    let rounded_up = Duration::from_secs(seconds);
    // A short window would not allow for the rounding of the sender.
    let most = longest(window).max(Duration::from_secs(2));
    if rounded_up <= most { TimeLeft::Trusted(rounded_up) } else { TimeLeft::TooLong(seconds) }
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}
