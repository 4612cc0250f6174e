//! A request that is admitted but not committed. Dropping it releases its slot.

use std::collections::HashMap;
use std::sync::Arc;

use crate::budget::credential_budget::CredentialBudget;
use crate::budget::membership::Membership;
use crate::ratelimit::limiter::InFlight;
use crate::time::MonoTime;

/// An admitted request that may still be stopped by its charge, by the store or by its caller. Dropping it releases its slot.
#[must_use = "dropped, it gives up its place"]
pub(super) struct UncommittedSlot<'a> {
    budget: &'a Arc<CredentialBudget>,
    flight: Option<InFlight>,
}

impl<'a> UncommittedSlot<'a> {
    pub(super) fn new(budget: &'a Arc<CredentialBudget>, flight: InFlight) -> Self {
        Self { budget, flight: Some(flight) }
    }

    /// Commits the request. The caller has to end it.
    pub(super) fn commit(mut self) -> Option<InFlight> {
        self.flight.take()
    }

    pub(super) fn is_express(&self) -> bool {
        self.flight.as_ref().is_some_and(InFlight::is_express)
    }

    /// Returns whether the store has to decide about it.
    pub(super) fn is_by_store(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.is_shared)
    }

    /// Gives it an identifier in the store.
    pub(super) fn register(&mut self, member: &Membership, in_flight: &mut HashMap<u64, MonoTime>) {
        if let Some(flight) = &mut self.flight {
            member.register(in_flight, flight, self.budget.clock.now());
        }
    }

    pub(super) fn request(&self) -> u64 {
        self.flight.as_ref().map_or(0, |flight| flight.request)
    }
}

impl Drop for UncommittedSlot<'_> {
    fn drop(&mut self) {
        if let Some(flight) = self.flight.take() {
            self.budget.mark_unsent(&flight);
        }
    }
}
