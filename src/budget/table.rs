//! All budgets, by credential. They outlive reloads: what has been sent has been sent, whatever is configured since.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;

use super::membership::Membership;
use super::shared::Budget;
use super::{API_KEY_PER_MINUTE, Settings};
use crate::credential::Injection;
use crate::identify::credential_key;
use crate::limit::{Clock, Seldom, shared_tag};
use crate::sharing::SharedStore;

/// Budgets by what Cal.com counts by: a credential, whoever has it configured or brings it along.
#[derive(Debug)]
pub struct Table {
    budgets: DashMap<u128, Known>,
    capacity: usize,
    clock: Clock,
    public: Arc<Budget>,
    /// Of unlisted credentials for which there is no room: limits get tighter, memory stays bounded.
    overflow: Arc<Budget>,
    pruned: Seldom,
    /// Where other gateways find the same budgets, and by when a request that is let out has an answer.
    store: Option<(Arc<SharedStore>, Duration)>,
}

#[derive(Debug)]
struct Known {
    budget: Arc<Budget>,
    /// Whether a configuration lists it, and so has the say about its settings.
    is_listed: bool,
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
    pub fn new(capacity: usize, settings: Settings, store: Option<(Arc<SharedStore>, Duration)>) -> Self {
        let clock = Clock::start();
        let fresh = |name: &str, key| Arc::new(Budget::new(name.into(), settings, clock, key, None));
        Self {
            budgets: DashMap::new(),
            capacity,
            clock,
            public: fresh("(public)", 1),
            overflow: fresh("(unlisted)", 2),
            pruned: Seldom::default(),
            store,
        }
    }

    /// The budget of a configured credential, with its settings. Where gateways share it, it is found by `tag`.
    pub fn configured(&self, identity: u128, tag: &Arc<str>, name: &Arc<str>, settings: Settings) -> Arc<Budget> {
        let fresh = || self.fresh(identity, self.member(identity, tag.clone(), true), name.clone(), settings);
        let mut known = self.budgets.entry(identity).or_insert_with(fresh);
        known.is_listed = true;
        let budget = known.budget.clone();
        drop(known);
        budget.configure(settings);
        budget
    }

    /// Has all that are there be known to the store.
    pub fn begin(&self) {
        self.budgets.iter().for_each(|known| known.budget.begin());
    }

    /// Says goodbye to the store for all of them.
    pub async fn end(&self) {
        let budgets: Vec<_> = self.budgets.iter().map(|known| known.budget.clone()).collect();
        for budget in budgets {
            budget.end().await;
        }
    }

    /// The budget of calls without a credential: Cal.com counts them by address, and all of ours come from one.
    pub fn public(&self, settings: Settings) -> Arc<Budget> {
        self.public.configure(settings.of(API_KEY_PER_MINUTE));
        self.public.clone()
    }

    /// The budget of a credential that no configuration lists: one that a caller brought, or a managed user's token. One
    /// that is configured, too, has the budget that is configured. The others are told their settings here: after a
    /// reload nobody else would.
    pub fn unlisted(&self, key: u128, name: &str, settings: Settings) -> Arc<Budget> {
        let known = self.budgets.get(&key).map(|known| (known.budget.clone(), known.is_listed));
        if let Some((budget, is_listed)) = known {
            if !is_listed {
                budget.configure(settings);
            }
            return budget;
        }
        if self.budgets.len() >= self.capacity {
            self.prune();
            if self.budgets.len() >= self.capacity {
                self.overflow.configure(settings.of(API_KEY_PER_MINUTE));
                return self.overflow.clone();
            }
        }
        let fresh = || self.fresh(key, self.member(key, shared_tag(key), false), name.into(), settings);
        self.budgets.entry(key).or_insert_with(fresh).budget.clone()
    }

    /// Forgets the budgets that are as good as new, now and then: that looks at all of them.
    fn prune(&self) {
        if self.pruned.is_due(self.clock.now()) {
            self.budgets.retain(|_, Known { budget, .. }| Arc::strong_count(budget) > 1 || !budget.is_unused());
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "any part of the key will do as a seed")]
    fn fresh(&self, key: u128, member: Option<Membership>, name: Arc<str>, settings: Settings) -> Known {
        let budget = Arc::new(Budget::new(name, settings, self.clock, key as u64, member));
        Known { budget, is_listed: false }
    }

    fn member(&self, identity: u128, tag: Arc<str>, lasts: bool) -> Option<Membership> {
        let (store, deadline) = self.store.clone()?;
        Some(Membership::new(store, tag, &shared_tag(identity), deadline, lasts))
    }
}
