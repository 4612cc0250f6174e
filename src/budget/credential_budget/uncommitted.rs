//! A request that may be sent but is not sent yet. Dropping it releases its place.

use std::collections::HashMap;
use std::sync::Arc;

use crate::budget::credential_budget::Budget;
use crate::budget::membership::Membership;
use crate::ratelimit::limiter::Flight;
use crate::time::MonoTime;

/// A request that is about to go. Dropped, it did not, and its place is free again.
#[must_use = "dropped, it gives up its place"]
pub(super) struct Boarding<'a> {
    budget: &'a Arc<Budget>,
    flight: Option<Flight>,
}

impl<'a> Boarding<'a> {
    pub(super) fn new(budget: &'a Arc<Budget>, flight: Flight) -> Self {
        Self { budget, flight: Some(flight) }
    }

    /// It goes; whoever gets the flight has to end it.
    pub(super) fn go(mut self) -> Option<Flight> {
        self.flight.take()
    }

    pub(super) fn is_express(&self) -> bool {
        self.flight.as_ref().is_some_and(Flight::is_express)
    }

    /// Whether it was let out for the store to decide on.
    pub(super) fn is_by_store(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.by_store)
    }

    /// Gives it the name that the store will know it by.
    pub(super) fn depart(&mut self, member: &Membership, flying: &mut HashMap<u64, MonoTime>) {
        if let Some(flight) = &mut self.flight {
            member.depart(flying, flight, self.budget.clock.now());
        }
    }

    pub(super) fn request(&self) -> u64 {
        self.flight.as_ref().map_or(0, |flight| flight.request)
    }
}

impl Drop for Boarding<'_> {
    fn drop(&mut self) {
        if let Some(flight) = self.flight.take() {
            self.budget.unsent(&flight);
        }
    }
}
