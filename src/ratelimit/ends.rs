//! Bounds of the end of a rate-limit window, derived from responses.
//!
//! A response says when its window ends, in whole seconds. The request and the response took an unknown part of the time
//! between them, so one response only gives two bounds of that end. The bounds of several responses narrow each other, but only where
//! all of them are about the same window.
//!
//! # Why the latest bound is never too early
//! Two windows of one limit never overlap, so their ends are at least one window W apart. Let M be the last end of all windows
//! that responses were noted of, with `earliest ≤ M ≤ latest`. A further response gives bounds `[e, l]` of the end E of its window.
//!
//! - `l < earliest`: E is before M. A window after it has begun, so the response's window is over.
//! - `e > latest`: E is after M, and all windows noted so far are over. The new bounds are `[e, l]`.
//! - Otherwise E − M is 0, or at least W, or at most −W. It can be at least W only if `l ≥ earliest + W`, and at most −W only if
//!   `e + W ≤ latest`.
//!   - If neither is possible, E = M, and both bounds of both hold: `latest` becomes `min(latest, l)`.
//!   - If only an earlier window is possible, M stays the last end, and `latest` stays.
//!   - If only a later window is possible, E is the last end, and `latest` becomes `l`.
//!   - If both are possible, `latest` becomes `max(latest, l)`.
//!
//! In each case `latest` is still at or after the last end of all noted windows. `earliest` becomes `max(earliest, e)`: the last end is
//! not before any of them. Only two slow responses, which together took about a window, leave more than one possibility.

use std::time::Duration;

use super::usage_headers::LimitReading;
use crate::time::MonoTime;

/// Cal.com rounds the time to the end of a window to whole seconds.
pub const ROUNDING: Duration = Duration::from_secs(1);

/// Bounds of the end of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The window does not end before.
    pub earliest: MonoTime,
    /// The window does not end after.
    pub latest: MonoTime,
}

/// Relation of a response's window to the windows noted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The window is over.
    Over,
    /// The window may be one of the noted ones.
    Open,
    /// All noted windows are over.
    Next,
}

impl Ends {
    /// Returns the bounds from a response that came at `at` to a request that was sent at `sent`. The response to the first
    /// request of a window gives the best bounds: the window began when that request arrived. They are used if the reset agrees
    /// with the length of a window.
    pub fn of_response(seen: &LimitReading, sent: MonoTime, at: MonoTime, window: Duration) -> Self {
        let is_first = seen.limit.is_some_and(|limit| seen.remaining.saturating_add(1) == limit);
        if is_first && seen.reset.abs_diff(window) < ROUNDING {
            return Self { earliest: sent.after(window), latest: at.after(window).after(window / 256) };
        }
        Self { earliest: sent.after(seen.reset).before(ROUNDING), latest: at.after(seen.reset).after(ROUNDING) }
    }

    /// Merges further bounds, and returns the relation of their window to the windows noted before.
    pub fn note(&mut self, other: Self, at: MonoTime, window: Duration) -> Relation {
        if other.latest < self.earliest {
            return Relation::Over;
        }
        let may_be_later = other.latest >= self.earliest.after(window);
        let may_be_earlier = other.earliest.after(window) <= self.latest;
        // After the end of all noted windows, a response that may be about a later window is the best information about that
        // window.
        if other.earliest > self.latest || (at > self.latest && may_be_later) {
            *self = other;
            return Relation::Next;
        }
        self.latest = match (may_be_earlier, may_be_later) {
            (false, false) => self.latest.min(other.latest),
            (true, false) => self.latest,
            (false, true) => other.latest,
            (true, true) => self.latest.max(other.latest),
        };
        self.earliest = self.earliest.max(other.earliest);
        Relation::Open
    }
}
