//! State of a budget, for metrics and `explain`.

use super::ThrottleReason;

/// How a budget stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetStatus {
    /// N: requests a window, as configured or as answers tell.
    pub limit: u32,
    /// Requests in flight, and those answered within the last window.
    pub used: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests that wait.
    pub waiting: usize,
    /// What is left of Cal.com's open window, as its answers tell.
    pub remaining: Option<u32>,
    /// Requests of others on the same credential, in one window; not told apart from other gateways' where there are several.
    pub foreign: u32,
    /// What would hold a request that came now.
    pub held_by: Option<ThrottleReason>,
}
