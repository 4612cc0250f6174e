//! Budgets of operations that Cal.com counts separately: from the catalog, or learned from responses.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::StatusCode;
use parking_lot::MutexGuard;

use crate::budget::credential_budget::CredentialBudget;
use crate::ratelimit::limiter::InFlight;
use crate::ratelimit::scope::{NameSightings, Scope};
use crate::ratelimit::usage_headers::{HeadReading, LimitReading};
use crate::ratelimit::{Settings, Throttled};
use crate::time::MonoTime;

/// Maximum learned operations of one credential. Cal.com has about a dozen operations with limits of their own (FACTS §2).
const MAX_LEARNED: usize = 64;

/// Limit of an operation.
#[derive(Debug)]
pub(super) enum Operation {
    /// The operation has a limit of its own.
    Separate {
        budget: Arc<CredentialBudget>,
        /// Hash of the limit's name, if a response has reported it.
        name: Option<u64>,
        /// Requests per window, if learned from responses and not listed in the catalog.
        learned: Option<u32>,
    },
    /// The catalog lists a limit of its own, but responses carry the credential's.
    OfCredential,
}

impl Operation {
    fn is_learned(&self) -> bool {
        matches!(self, Self::Separate { learned: Some(_), .. })
    }

    fn is_learned_as(&self, wanted: u64) -> bool {
        self.is_learned() && matches!(self, Self::Separate { name: Some(name), .. } if *name == wanted)
    }
}

impl CredentialBudget {
    /// Returns whether operations were learned from responses.
    pub(in crate::budget) fn has_learned(&self) -> bool {
        self.has_learned.load(Ordering::Relaxed)
    }

    /// Returns the budget of the operation `key`, if it has one: from the catalog with the settings `listed`, or learned from
    /// responses.
    pub(in crate::budget) fn sub_budget(self: &Arc<Self>, key: u64, listed: Option<Settings>) -> Option<Arc<Self>> {
        let own = self.settings();
        let mut operations = self.operations();
        if let Some(settings) = listed {
            let fresh = || Operation::Separate { budget: self.new_operation(key, settings), name: None, learned: None };
            // The catalog takes precedence over responses and older records.
            if let Operation::Separate { learned, .. } = operations.entry(key).or_insert_with(fresh) {
                *learned = None;
            }
        }
        let Some(Operation::Separate { budget, learned, .. }) = operations.get(&key) else { return None };
        let (budget, learned) = (budget.clone(), *learned);
        drop(operations);
        let settings = learned.map(|limit| Settings { limit, learn_limit: true, ..own }).or(listed);
        if let Some(settings) = settings {
            budget.configure(settings);
        }
        Some(budget)
    }

    /// Returns whether no budget of an operation is in use.
    pub(super) fn are_operations_unused(&self) -> bool {
        self.operations().values().all(|operation| match operation {
            Operation::Separate { budget, .. } => budget.is_unused(),
            Operation::OfCredential => true,
        })
    }

    /// Returns the budget to which the limits of a response belong, if it is not this one, which admitted the request.
    /// `operation` is the key of the request's operation.
    pub(super) fn counted_elsewhere(self: &Arc<Self>, told: &[LimitReading], operation: u64) -> Option<Arc<Self>> {
        match &self.credential {
            None => self.of_told_operation(told, operation),
            Some(credential) => credential.upgrade().filter(|credential| credential.takes_back(told, operation)),
        }
    }

    /// Counts a request that another budget admitted at `sent`.
    pub(super) fn count(
        self: &Arc<Self>,
        (consumer, sent): (u64, MonoTime),
        status: StatusCode,
        reading: HeadReading,
    ) -> Option<Throttled> {
        self.start();
        let mut state = self.lock();
        let mut flight = state.limiter.adopt(consumer, sent);
        if let Some(member) = &self.member {
            member.register(&mut state.in_flight, &mut flight, self.clock.now());
        }
        self.settle(&mut state, &flight, status, reading)
    }

    /// In the budget of a credential: returns the budget of the operation, if the limits belong to it.
    fn of_told_operation(self: &Arc<Self>, told: &[LimitReading], operation: u64) -> Option<Arc<Self>> {
        let name = told.first()?.name;
        let mut operations = self.operations();
        if self.scope(&operations, told, operation) == Scope::Credential {
            // An operation learned under the same name has the credential's limit.
            operations.retain(|_, operation| !operation.is_learned_as(name));
            return None;
        }
        if let Some(Operation::Separate { budget, .. }) = operations.get(&operation) {
            return Some(budget.clone());
        }
        let same_limit = operations.values().find(|operation| operation.is_learned_as(name));
        let limit = told.first()?.limit.unwrap_or(1);
        let budget = match same_limit {
            Some(Operation::Separate { budget, .. }) => budget.clone(),
            _ => self.new_operation(operation, Settings { limit, learn_limit: true, ..self.settings() }),
        };
        make_room(&mut operations);
        if operations.len() < MAX_LEARNED || operations.contains_key(&operation) {
            let own = Operation::Separate { budget: budget.clone(), name: Some(name), learned: Some(limit) };
            operations.insert(operation, own);
            self.has_learned.store(true, Ordering::Relaxed);
        }
        Some(budget)
    }

    /// In the budget of a credential: returns whether the limits in a response to an operation with a budget of its own belong to
    /// the credential. The operation then loses its budget.
    fn takes_back(self: &Arc<Self>, told: &[LimitReading], operation: u64) -> bool {
        let mut operations = self.operations();
        if self.scope(&operations, told, operation) == Scope::Credential {
            let was_learned = operations.get(&operation).is_none_or(Operation::is_learned);
            if was_learned {
                operations.remove(&operation);
            } else {
                operations.insert(operation, Operation::OfCredential);
            }
            return true;
        }
        if let Some(Operation::Separate { name, .. }) = operations.get_mut(&operation) {
            *name = told.first().map(|seen| seen.name);
        }
        false
    }

    /// Returns the scope of the limits in a response to `operation`. Records the names of the credential's limits.
    fn scope(&self, operations: &HashMap<u64, Operation>, told: &[LimitReading], operation: u64) -> Scope {
        let name = told.first().map_or(0, |seen| seen.name);
        let known = NameSightings {
            here: matches!(operations.get(&operation), Some(Operation::Separate { .. })),
            elsewhere: operations.iter().any(|(key, other)| *key != operation && other.is_learned_as(name)),
        };
        let mut state = self.lock();
        let scope = state.names.scope(told, state.settings.limit, known);
        if scope == Scope::Credential {
            state.names.note(told);
        }
        scope
    }

    pub(super) fn new_operation(self: &Arc<Self>, key: u64, settings: Settings) -> Arc<Self> {
        let member = self.member.as_ref().map(|member| member.for_sub_limit(&format!("{key:016x}")));
        let mut budget = Self::new(self.name.clone(), settings, self.clock, member);
        budget.credential = Some(Arc::downgrade(self));
        Arc::new(budget)
    }

    /// Locks the operations. Lock order: operations before state.
    pub(super) fn operations(&self) -> MutexGuard<'_, HashMap<u64, Operation>> {
        self.operations.lock()
    }
}

/// Removes unused learned operations, if there are too many.
fn make_room(operations: &mut HashMap<u64, Operation>) {
    if operations.len() >= MAX_LEARNED {
        operations.retain(|_, operation| match operation {
            Operation::Separate { budget, learned: Some(_), .. } => !budget.is_unused(),
            _ => true,
        });
    }
}

/// Returns the consumer and send time of a request that moves to another budget.
pub(super) fn moved(flight: &InFlight) -> (u64, MonoTime) {
    (flight.consumer, flight.sent())
}
