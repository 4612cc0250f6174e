//! Proof that a request may be sent. Its holder reports the outcome.

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

/// One request's reserved in its credential's budget. Whatever happens to the request, its end is counted: dropped before
/// anything was written the reserved is free again; dropped after that, the request counts as long as it might have arrived.
#[derive(Debug)]
#[must_use = "a slot is there to send a request with"]
pub struct Slot {
    /// `None` where nothing is counted.
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
    /// Whether some of it may have been written.
    sent: bool,
}

impl Slot {
    /// A slot where there is no limit.
    pub(super) fn unlimited() -> Self {
        Self { reserved: None, held: None }
    }

    /// A slot in `budget`; waits for it if need be.
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

    /// What the request waited for and how long, if it did; in observe mode, what it would have waited for.
    pub fn throttled(&self) -> Option<Throttled> {
        self.held
    }

    /// Some of the request may be written from now on.
    pub fn mark_sent(&mut self) {
        if let Some(reserved) = &mut self.reserved {
            reserved.sent = true;
        }
    }

    /// Nothing of the request was written after all.
    pub fn mark_unsent(&mut self) {
        if let Some(reserved) = &mut self.reserved {
            reserved.sent = false;
        }
    }

    /// Makes sure of a reserved for sending the request again. If its first sending may have reached Cal.com that counts, and
    /// the second needs a reserved of its own.
    ///
    /// # Errors
    /// [`Refusal::UpstreamBudget`] where there is none.
    pub async fn renew(&mut self) -> Result<(), Refusal> {
        let Some(reserved) = &mut self.reserved else { return Ok(()) };
        if reserved.sent {
            reserved.end();
            self.held = reserved.acquire(None).await?.or(self.held);
        }
        Ok(())
    }

    /// The head of the answer to a request for `operation` has come, see [`super::operation_key`].
    ///
    /// # Errors
    /// [`Refusal::UpstreamBudget`] where it is Cal.com's 429, or that of the edge in front of it: with the time until
    /// anything is sent again on the credential, or for the operation. One that is only observed is passed on.
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
    /// The body of an answer with this head says that the edge limits the rate.
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

    /// Ends a flight that no answer came to.
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
