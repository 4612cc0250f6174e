//! State of a budget, for metrics and `explain`.

use super::ThrottleReason;

/// State of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetStatus {
    /// N: requests per window, as configured or as responses report.
    pub limit: u32,
    /// Requests in flight, and those answered within the last window.
    pub used: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// Waiting requests.
    pub waiting: usize,
    /// Remaining requests of Cal.com's open window, as responses report.
    pub remaining: Option<u32>,
    /// Requests of other clients of the credential in one window. With several gateways, those of other gateways cannot be told
    /// apart.
    pub foreign: u32,
    /// Reason why a request that came now would be throttled.
    pub held_by: Option<ThrottleReason>,
}
