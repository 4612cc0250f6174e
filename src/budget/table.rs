//! All budgets, by credential. They outlive reloads: what has been sent has been sent, whatever is configured since.

use std::sync::Arc;

use dashmap::DashMap;

use super::shared::Budget;
use super::{API_KEY_PER_MINUTE, Settings};
use crate::credential::Injection;
use crate::identify::credential_key;
use crate::limit::Clock;

/// Budgets by what Cal.com counts by: a credential, whoever has it configured or brings it along.
#[derive(Debug)]
pub struct Table {
    budgets: DashMap<u128, Arc<Budget>>,
    capacity: usize,
    clock: Clock,
    public: Arc<Budget>,
    /// Of unlisted credentials for which there is no room: limits get tighter, memory stays bounded.
    overflow: Arc<Budget>,
}

/// The key of the credential that a request is sent with; `None` where it is sent with none.
pub fn identity(injection: &Injection) -> Option<u128> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    match injection {
        Injection::Nothing => None,
        Injection::Bearer(value) => Some(credential_key(&[text(value).trim_start_matches("Bearer ")])),
        Injection::Client { id, secret } => Some(credential_key(&[&text(id), &text(secret)])),
    }
}

impl Table {
    /// A table for about `capacity` unlisted credentials at once.
    pub fn new(capacity: usize, settings: Settings) -> Self {
        let clock = Clock::start();
        let fresh = |name: &str, key| Arc::new(Budget::new(name.into(), settings, clock, key));
        Self {
            budgets: DashMap::new(),
            capacity,
            clock,
            public: fresh("(public)", 1),
            overflow: fresh("(unlisted)", 2),
        }
    }

    /// The budget of a configured credential, with its settings.
    pub fn configured(&self, identity: u128, name: &Arc<str>, settings: Settings) -> Arc<Budget> {
        let fresh = || self.fresh(identity, name.clone(), settings);
        let budget = self.budgets.entry(identity).or_insert_with(fresh).clone();
        budget.configure(settings);
        budget
    }

    /// The budget of calls without a credential: Cal.com counts them by address, and all of ours come from one.
    pub fn public(&self, settings: Settings) -> Arc<Budget> {
        self.public.configure(settings.of(API_KEY_PER_MINUTE));
        self.public.clone()
    }

    /// The budget of a credential that no configuration lists: one that a caller brought, or a managed user's token. One
    /// that is configured, too, has the budget that is configured.
    pub fn unlisted(&self, key: u128, name: &str, settings: Settings) -> Arc<Budget> {
        if let Some(budget) = self.budgets.get(&key) {
            return budget.clone();
        }
        if self.budgets.len() >= self.capacity {
            self.budgets.retain(|_, budget| Arc::strong_count(budget) > 1 || !budget.is_unused());
            if self.budgets.len() >= self.capacity {
                return self.overflow.clone();
            }
        }
        let fresh = || self.fresh(key, name.into(), settings);
        self.budgets.entry(key).or_insert_with(fresh).clone()
    }

    #[expect(clippy::cast_possible_truncation, reason = "any part of the key will do as a seed")]
    fn fresh(&self, key: u128, name: Arc<str>, settings: Settings) -> Arc<Budget> {
        Arc::new(Budget::new(name, settings, self.clock, key as u64))
    }
}
