//! Sliding-window log of one credential: requests in flight, and those answered within the last window.
//!
//! # Why no window of Cal.com's ever holds more than N
//! Cal.com counts a fixed window of length W, which starts at a request that only Cal.com saw arrive (FACTS §2). A request `i`
//! leaves here at `s(i)` and arrives there at `a(i)`. Its response arrives here at `r(i)`. Only `s(i) ≤ a(i) ≤ r(i)` is certain.
//! The rule is: send only while *in flight + answered less than W ago* is below N.
//!
//! Take any window `[T, T + W)` and, of the requests that arrive in it, the one that left here last, `j`. Every other one left
//! before `s(j)`. At `s(j)` it had no response, and counted as in flight. Or it had one at `r(i) ≥ a(i) ≥ T > a(j) − W ≥ s(j) −
//! W`, and counted as answered less than W ago. So all of them counted when `j` was admitted, and there were at most N − 1. With
//! `j` there are at most N.
//!
//! The proof assumes that Cal.com's clock runs as fast as ours. It assumes nothing about the travel time of requests and
//! responses, or about the start of windows. N requests may be sent at once. Entries are kept a thousandth longer than W, because
//! clocks differ slightly and windows are counted in whole milliseconds. A request with an unknown outcome arrives before its
//! deadline, if it arrives, and the deadline replaces `r(i)`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::MonoTime;

/// Log of one limit. It holds at most N requests, because the rule above admits no more.
#[derive(Debug, Default)]
pub struct SlidingLog {
    in_flight: u32,
    /// Completed requests. The next one to expire is in front.
    complete: VecDeque<LogEntry>,
}

#[derive(Debug)]
struct LogEntry {
    expiry: MonoTime,
    consumer: u64,
}

impl SlidingLog {
    /// Returns the number of requests without a response.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Returns the number of requests in flight and of those that Cal.com may still count.
    pub fn used(&self) -> u32 {
        self.in_flight.saturating_add(u32::try_from(self.complete.len()).unwrap_or(u32::MAX))
    }

    /// Returns when the next request expires, if any is completed.
    pub fn next_expiry(&self) -> Option<MonoTime> {
        self.nth_expiry(1)
    }

    /// Returns when `n` completed requests have expired; `None` if there are fewer.
    pub fn nth_expiry(&self, n: u32) -> Option<MonoTime> {
        self.complete.get(usize::try_from(n).ok()?.checked_sub(1)?).map(|entry| entry.expiry)
    }

    /// Returns when each completed request expires.
    pub fn expiries(&self) -> impl Iterator<Item = MonoTime> {
        self.complete.iter().map(|entry| entry.expiry)
    }

    /// Records that a request is sent.
    pub fn start(&mut self) {
        self.in_flight = self.in_flight.saturating_add(1);
    }

    /// Records that a request of `consumer` is completed. It arrived at `by` at the latest.
    pub fn complete(&mut self, consumer: u64, by: MonoTime, window: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let expiry = by.after(window + window / 1000);
        let behind = self.complete.iter().rposition(|entry| entry.expiry <= expiry).map_or(0, |i| i + 1);
        self.complete.insert(behind, LogEntry { expiry, consumer });
    }

    /// Records that a request was not sent: none of it was written.
    pub fn cancel(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Removes the next request that Cal.com no longer counts, and returns its consumer.
    pub fn pop_expired(&mut self, now: MonoTime) -> Option<u64> {
        let due = self.complete.front().is_some_and(|entry| entry.expiry <= now);
        if due { self.complete.pop_front().map(|entry| entry.consumer) } else { None }
    }
}
