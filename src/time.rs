//! Monotonic time, the clock that reads it, and conversions of times.

#![expect(clippy::disallowed_methods, reason = "this module owns the monotonic clock")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

/// Moment of the process clock, in nanoseconds since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct MonoTime(pub u64);

impl MonoTime {
    /// Returns the moment `wait` later.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(wait)))
    }

    /// Returns the moment `span` earlier, at least the clock's start.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanoseconds(span)))
    }

    /// Returns the time since `earlier`, or zero if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Monotonic clock of the process. A reload does not restart it, so stored moments stay valid.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Starts a clock at zero.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Returns the time since the start.
    pub fn now(self) -> MonoTime {
        self.at(Instant::now())
    }

    /// Converts a moment of the system clock.
    pub fn at(self, moment: Instant) -> MonoTime {
        MonoTime(nanoseconds(moment.saturating_duration_since(self.0)))
    }
}

/// Minimum time between two runs, one second.
const INTERVAL_NS: u64 = 1_000_000_000;

/// Gate for maintenance work on the request path: at most one run each second.
#[derive(Debug, Default)]
pub struct OncePerSecond(AtomicU64);

impl OncePerSecond {
    /// Returns whether the caller may run now. Of several concurrent callers, one gets `true`.
    pub fn try_start(&self, now: MonoTime) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let due = last == 0 || now.0.saturating_sub(last) >= INTERVAL_NS;
        due && self.0.compare_exchange(last, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Converts a duration to nanoseconds. The largest number stands for 584 years and more.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Converts a duration to milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Formats a time as Cal.com does: in UTC, with milliseconds.
pub(crate) fn iso8601(moment: SystemTime) -> String {
    format!("{:.3}", Timestamp::try_from(moment).unwrap_or_default())
}
