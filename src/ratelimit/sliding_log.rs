//! Sliding-window log of one credential: requests in flight, and those answered within the last window.
//!
//! # Why no window of Cal.com's ever holds more than N
//! Cal.com counts a fixed window of length W, which starts at a request that only Cal.com saw arrive (FACTS §2). A request
//! `i` leaves here at `s(i)`, arrives there at `a(i)` and its answer is here at `r(i)`, and all that is certain is
//! `s(i) ≤ a(i) ≤ r(i)`. The rule is: send only while *in flight + answered less than W ago* is below N.
//!
//! Take any window `[T, T + W)` and, of the requests that arrive in it, the one that left here last, `j`. Every other one
//! left before `s(j)`, so at `s(j)` it either had no answer, and was counted as in flight, or it had one at
//! `r(i) ≥ a(i) ≥ T > a(j) − W ≥ s(j) − W`, and was counted as answered less than W ago. So all of them were counted, and
//! as `j` was let out there were at most N − 1: with `j`, at most N.
//!
//! Nothing is assumed of Cal.com's clock beyond its running as fast as ours, nor of how long requests or answers travel,
//! nor of where windows begin; N may leave at once. For clocks that do not run quite alike, and windows that are counted
//! in whole milliseconds, entries are kept a thousandth longer than W. A request whose fate is unknown arrives, if it
//! does, before its deadline, which takes the place of `r(i)`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::MonoTime;

/// The log of one limit. It holds at most N requests: the rule that it serves is also what bounds it.
#[derive(Debug, Default)]
pub struct SlidingLog {
    in_flight: u32,
    /// Requests that are over, the first to be released in front.
    complete: VecDeque<LogEntry>,
}

#[derive(Debug)]
struct LogEntry {
    expiry: MonoTime,
    consumer: u64,
}

impl SlidingLog {
    /// Requests that have no answer yet.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Requests in flight and those that Cal.com may still be counting.
    pub fn used(&self) -> u32 {
        self.in_flight.saturating_add(u32::try_from(self.complete.len()).unwrap_or(u32::MAX))
    }

    /// When the next request is released, if any is waiting for that.
    pub fn next_expiry(&self) -> Option<MonoTime> {
        self.nth_expiry(1)
    }

    /// When `n` of those that are over have been released; `None` where there are fewer.
    pub fn nth_expiry(&self, n: u32) -> Option<MonoTime> {
        self.complete.get(usize::try_from(n).ok()?.checked_sub(1)?).map(|entry| entry.expiry)
    }

    /// When each of those that are over is released.
    pub fn expiries(&self) -> impl Iterator<Item = MonoTime> {
        self.complete.iter().map(|entry| entry.expiry)
    }

    /// A request goes out.
    pub fn start(&mut self) {
        self.in_flight = self.in_flight.saturating_add(1);
    }

    /// A request of `consumer` is over: it arrived at `by` at the latest.
    pub fn complete(&mut self, consumer: u64, by: MonoTime, window: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let expiry = by.after(window + window / 1000);
        let behind = self.complete.iter().rposition(|entry| entry.expiry <= expiry).map_or(0, |i| i + 1);
        self.complete.insert(behind, LogEntry { expiry, consumer });
    }

    /// A request did not go out after all: none of it was written.
    pub fn cancel(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// The consumer of the next request that Cal.com no longer counts, which is forgotten.
    pub fn pop_expired(&mut self, now: MonoTime) -> Option<u64> {
        let due = self.complete.front().is_some_and(|entry| entry.expiry <= now);
        if due { self.complete.pop_front().map(|entry| entry.consumer) } else { None }
    }
}
