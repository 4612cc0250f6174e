//! Proof that a request may be sent. Its holder reports the outcome.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::Mode;
use crate::budget::credential_budget::Budget;
use crate::limit::PendingCharge;
use crate::ratelimit::fair_queue::Asker;
use crate::ratelimit::limiter::Flight;
use crate::ratelimit::{Held, Hold};
use crate::refusal::Refusal;

/// One request's place in its credential's budget. Whatever happens to the request, its end is counted: dropped before
/// anything was written the place is free again; dropped after that, the request counts as long as it might have arrived.
#[derive(Debug)]
#[must_use = "a slot is there to send a request with"]
pub struct Slot {
    /// `None` where nothing is counted.
    place: Option<Taken>,
    held: Option<Held>,
}

#[derive(Debug)]
struct Taken {
    budget: Arc<Budget>,
    mode: Mode,
    asker: Asker,
    patience: Duration,
    deadline: Duration,
    flight: Option<Flight>,
    /// Whether some of it may have been written.
    sent: bool,
}

impl Slot {
    /// A slot where there is no limit.
    pub(super) fn unlimited() -> Self {
        Self { place: None, held: None }
    }

    /// A slot in `budget`; waits for it if need be.
    pub(super) async fn take(
        budget: Arc<Budget>,
        mode: Mode,
        asker: Asker,
        patience: Duration,
        deadline: Duration,
        pending: Option<&PendingCharge<'_>>,
    ) -> Result<Self, Refusal> {
        let mut taken = Taken { budget, mode, asker, patience, deadline, flight: None, sent: false };
        let held = taken.board(pending).await?;
        Ok(Self { place: Some(taken), held })
    }

    /// What the request waited for and how long, if it did; in observe mode, what it would have waited for.
    pub fn held(&self) -> Option<Held> {
        self.held
    }

    /// Some of the request may be written from now on.
    pub fn sending(&mut self) {
        if let Some(taken) = &mut self.place {
            taken.sent = true;
        }
    }

    /// Nothing of the request was written after all.
    pub fn not_sent(&mut self) {
        if let Some(taken) = &mut self.place {
            taken.sent = false;
        }
    }

    /// Makes sure of a place for sending the request again. If its first sending may have reached Cal.com that counts, and
    /// the second needs a place of its own.
    ///
    /// # Errors
    /// [`Refusal::UpstreamBudget`] where there is none.
    pub async fn again(&mut self) -> Result<(), Refusal> {
        let Some(taken) = &mut self.place else { return Ok(()) };
        if taken.sent {
            taken.end();
            self.held = taken.board(None).await?.or(self.held);
        }
        Ok(())
    }

    /// The head of the answer to a request for `operation` has come, see [`super::operation_key`].
    ///
    /// # Errors
    /// [`Refusal::UpstreamBudget`] where it is Cal.com's 429, or that of the edge in front of it: with the time until
    /// anything is sent again on the credential, or for the operation. One that is only observed is passed on.
    pub fn answered(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        operation: impl FnOnce() -> u64,
    ) -> Result<(), Refusal> {
        let Some(taken) = &mut self.place else { return Ok(()) };
        let Some(flight) = taken.flight.take() else { return Ok(()) };
        match taken.budget.answered(&flight, status, headers, operation) {
            Some(held) if status == StatusCode::TOO_MANY_REQUESTS && taken.mode == Mode::Enforce => {
                Err(Refusal::UpstreamBudget(held))
            }
            _ => Ok(()),
        }
    }
}

impl Slot {
    /// The body of an answer with this head says that the edge limits the rate.
    pub fn limited_by_edge(&self, status: StatusCode, headers: &HeaderMap) {
        if let Some(taken) = &self.place {
            taken.budget.limited_by_edge(status, headers);
        }
    }
}

impl Taken {
    async fn board(&mut self, pending: Option<&PendingCharge<'_>>) -> Result<Option<Held>, Refusal> {
        let (flight, held) = match self.mode {
            Mode::Observe => {
                let (flight, by) = self.budget.take_only_observing(&self.asker, pending).await?;
                (flight, by.map(|by: Hold| Held { by, wait: Duration::ZERO }))
            }
            Mode::Enforce | Mode::Off => self.budget.take(self.asker, self.patience, pending).await?,
        };
        self.flight = Some(flight);
        self.sent = false;
        Ok(held)
    }

    /// Ends a flight that no answer came to.
    fn end(&mut self) {
        match self.flight.take() {
            Some(flight) if self.sent => self.budget.lost(&flight, self.deadline),
            Some(flight) => self.budget.unsent(&flight),
            None => {}
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.end();
    }
}
