//! What a budget may still send: a number of requests, and their pacing.

use std::time::Duration;

use crate::time::MonoTime;

/// Number of further requests that may be sent, and when that changes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headroom {
    /// Requests in addition to those in flight.
    pub more: u32,
    /// When the number changes without a response, if it does.
    pub until: Option<MonoTime>,
}

/// Pacing of requests that take turns, the loosest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pacing {
    /// All at once, because the window is about to end.
    Immediate,
    /// One request in each such time, so that the rest just lasts.
    Every(Duration),
    /// None before this time, because express requests will use the rest.
    NotBefore(MonoTime),
}
