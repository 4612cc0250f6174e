//! Permission to send one request. Its holder reports the outcome.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::BudgetMode;
use crate::budget::credential_budget::CredentialBudget;
use crate::limit::PendingCharge;
use crate::ratelimit::fair_queue::Flow;
use crate::ratelimit::limiter::InFlight;
use crate::ratelimit::{ThrottleReason, Throttled};
use crate::refusal::Refusal;

/// Permission to send one request with a credential. Dropping it before anything was written releases it. Dropping it later
/// counts the request for as long as it might have arrived.
#[derive(Debug)]
#[must_use = "a slot is there to send a request with"]
pub struct Slot {
    /// `None` if nothing is counted.
    reserved: Option<Reserved>,
    held: Option<Throttled>,
}

#[derive(Debug)]
struct Reserved {
    budget: Arc<CredentialBudget>,
    mode: BudgetMode,
    flow: Flow,
    patience: Duration,
    deadline: Duration,
    flight: Option<InFlight>,
    /// Whether some of the request may have been written.
    sent: bool,
}

impl Slot {
    /// Creates a slot without a limit.
    pub(super) fn unlimited() -> Self {
        Self { reserved: None, held: None }
    }

    /// Reserves a slot in `budget`, and waits for it if necessary.
    pub(super) async fn reserve(
        budget: Arc<CredentialBudget>,
        mode: BudgetMode,
        flow: Flow,
        patience: Duration,
        deadline: Duration,
        pending: Option<&PendingCharge<'_>>,
    ) -> Result<Self, Refusal> {
        let mut reserved = Reserved { budget, mode, flow, patience, deadline, flight: None, sent: false };
        let held = reserved.acquire(pending).await?;
        Ok(Self { reserved: Some(reserved), held })
    }

    /// Returns why and how long the request waited. In observe mode, returns why it would have waited.
    pub fn throttled(&self) -> Option<Throttled> {
        self.held
    }

    /// Records that some of the request may be written from now on.
    pub fn mark_sent(&mut self) {
        if let Some(reserved) = &mut self.reserved {
            reserved.sent = true;
        }
    }

    /// Records that nothing of the request was written.
    pub fn mark_unsent(&mut self) {
        if let Some(reserved) = &mut self.reserved {
            reserved.sent = false;
        }
    }

    /// Prepares the slot for a retry. If the first attempt may have reached Cal.com, it counts, and the retry reserves a slot of
    /// its own.
    ///
    /// # Errors
    /// [`Refusal::UpstreamBudget`] if there is none.
    pub async fn renew(&mut self) -> Result<(), Refusal> {
        let Some(reserved) = &mut self.reserved else { return Ok(()) };
        if reserved.sent {
            reserved.end();
            self.held = reserved.acquire(None).await?.or(self.held);
        }
        Ok(())
    }

    /// Records the head of the response to a request for `operation` (see [`super::operation_key`]).
    ///
    /// # Errors
    /// [`Refusal::UpstreamBudget`] for a 429 of Cal.com or of the edge in front of it, with the time until the next request of
    /// the credential or operation. In observe mode, the 429 is passed on.
    pub fn record_response(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        operation: impl FnOnce() -> u64,
    ) -> Result<(), Refusal> {
        let Some(reserved) = &mut self.reserved else { return Ok(()) };
        let Some(flight) = reserved.flight.take() else { return Ok(()) };
        match reserved.budget.record_response(&flight, status, headers, operation) {
            Some(held) if status == StatusCode::TOO_MANY_REQUESTS && reserved.mode == BudgetMode::Enforce => {
                Err(Refusal::UpstreamBudget(held))
            }
            _ => Ok(()),
        }
    }
}

impl Slot {
    /// Records that the edge limits the rate, as the body of a response with this head says.
    pub fn record_edge_limit(&self, status: StatusCode, headers: &HeaderMap) {
        if let Some(reserved) = &self.reserved {
            reserved.budget.record_edge_limit(status, headers);
        }
    }
}

impl Reserved {
    async fn acquire(&mut self, pending: Option<&PendingCharge<'_>>) -> Result<Option<Throttled>, Refusal> {
        let (flight, held) = match self.mode {
            BudgetMode::Observe => {
                let (flight, by) = self.budget.acquire_observed(&self.flow, pending).await?;
                (flight, by.map(|by: ThrottleReason| Throttled { by, wait: Duration::ZERO }))
            }
            BudgetMode::Enforce | BudgetMode::Off => self.budget.acquire(self.flow, self.patience, pending).await?,
        };
        self.flight = Some(flight);
        self.sent = false;
        Ok(held)
    }

    /// Ends a request without a response.
    fn end(&mut self) {
        match self.flight.take() {
            Some(flight) if self.sent => self.budget.mark_lost(&flight, self.deadline),
            Some(flight) => self.budget.mark_unsent(&flight),
            None => {}
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.end();
    }
}
