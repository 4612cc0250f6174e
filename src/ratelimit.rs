//! Pure rate limiting: state machines without I/O, clock or task.
//!
//! The caller passes the time to each call, so simulated time and the property tests drive the code that production runs.
//! [`bucket`] limits one consumer; governor decides there. [`limiter`] limits the requests that are sent with one credential. It
//! combines these parts:
//!
//! - [`sliding_log`] bounds every window of Cal.com and contains the proof.
//! - [`upstream_windows`] tracks the windows that responses report.
//! - [`replica_share`] divides a window among gateways that share nothing.
//! - [`fair_queue`] orders the waiting requests.
//! - [`backoff`] pauses after a refusal.
//!
//! `budget` gives the limiter a lock and a timer.

pub mod authority;
pub mod backoff;
pub mod bucket;
mod decision;
pub mod demand;
pub mod effective_limit;
pub mod ends;
pub mod fair_queue;
pub mod first_response;
pub mod headroom;
pub mod keyed;
pub mod limiter;
pub mod other_clients;
pub mod parts;
pub mod quota;
pub mod replica_share;
pub mod scope;
pub mod sliding_log;
pub mod status;
pub mod tier;
pub mod upstream_windows;
pub mod usage_headers;

use std::time::Duration;

pub use bucket::{Bucket, Exhausted};
pub use keyed::KeyedBuckets;
pub use quota::{Quota, RateLimitStatus};
pub use tier::{Scheduling, Tier};

/// Settings of a budget, from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// N: requests that Cal.com grants in one window.
    pub limit: u32,
    /// Length of Cal.com's window.
    pub window: Duration,
    /// Number of gateways on the same credential that share no limit store.
    pub replicas: u32,
    /// Whether responses may raise the limit above the configured one.
    pub learn_limit: bool,
}

impl Settings {
    /// Returns the same settings with the limit of another rate. The limit is at least one request in a window.
    #[must_use]
    pub fn of(self, requests_per_minute: u32) -> Self {
        let in_window = u128::from(requests_per_minute) * self.window.as_millis() / 60_000;
        Self { limit: u32::try_from(in_window).unwrap_or(u32::MAX).max(1), ..self }
    }
}

/// Why a request is throttled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThrottleReason {
    /// N requests are in flight or within the last window.
    Requests,
    /// Cal.com's own count leaves too little for this gateway and for other clients.
    Remaining,
    /// Other requests wait too. Requests are sent one by one.
    Pace,
    /// Cal.com has answered 429.
    Refused,
    /// The edge in front of Cal.com refused a request.
    Edge,
    /// Too many requests wait already.
    Queue,
}

impl ThrottleReason {
    /// Returns the name in logs, metrics and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Remaining => "remaining",
            Self::Pace => "pace",
            Self::Refused => "refused",
            Self::Edge => "edge",
            Self::Queue => "queue",
        }
    }
}

/// A throttled request: the reason and the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttled {
    /// Reason.
    pub by: ThrottleReason,
    /// Expected wait until the request can be sent. For a request that has waited, the time that it waited.
    pub wait: Duration,
}
