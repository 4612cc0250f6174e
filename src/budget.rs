//! May this credential now? What Cal.com grants it is used to the last request, and never exceeded.

pub mod breaker;
pub mod foreign;
pub mod gate;
pub mod granted;
pub mod headers;
pub mod log;
pub mod machine;
pub mod queue;
pub mod replicas;

use std::time::Duration;

/// What a budget is told by the configuration.
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

/// What holds a request back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hold {
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

impl Hold {
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

/// A request that is held back: by what, and for how long at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// By what.
    pub by: Hold,
    /// Until it would be let out, as far as can be told.
    pub wait: Duration,
}
