//! Pure rate limiting: state machines without I/O, clock or task.
//!
//! Every call is given the time, so that simulated time and the property tests drive the code that runs. [`bucket`] limits
//! a consumer; governor decides there. [`limiter`] limits what is sent with one credential: [`sliding_log`] bounds every
//! window of Cal.com's and holds the proof, [`upstream_windows`] follows what responses report, [`replica_share`] divides a
//! window among gateways that share nothing, [`fair_queue`] orders those who wait, and [`backoff`] pauses after a refusal.
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
    /// Cal.com's window.
    pub window: Duration,
    /// Gateways on the same credential that share no store.
    pub replicas: u32,
    /// Whether answers may raise the limit above what is configured.
    pub learn_limit: bool,
}

impl Settings {
    /// The same with another number of requests a minute, of which at least one is left in a window.
    #[must_use]
    pub fn of(self, requests_per_minute: u32) -> Self {
        let in_window = u128::from(requests_per_minute) * self.window.as_millis() / 60_000;
        Self { limit: u32::try_from(in_window).unwrap_or(u32::MAX).max(1), ..self }
    }
}

/// What holds a request back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThrottleReason {
    /// N requests are in flight or within the last window.
    Requests,
    /// Cal.com's own count has too little left, for ourselves and for others.
    Remaining,
    /// Others wait, too; requests go out one by one.
    Pace,
    /// Cal.com has answered 429.
    Refused,
    /// The edge in front of Cal.com has refused.
    Edge,
    /// Too many wait already.
    Queue,
}

impl ThrottleReason {
    /// The name in logs, metrics and messages.
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

/// A request that is held back: by what, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttled {
    /// By what.
    pub by: ThrottleReason,
    /// Until it would be let out, as far as can be told; or how long it has waited, once it has been.
    pub wait: Duration,
}
