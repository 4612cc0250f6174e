//! All budgets, by credential. They outlive reloads, because sent requests still count.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::budget::API_KEY_PER_MINUTE;
use crate::budget::credential_budget::CredentialBudget;
use crate::budget::membership::Membership;
use crate::budget::used_windows::UsedWindows;
use crate::credential::AuthHeaders;
use crate::identify::credential_hash;
use crate::limit::hash_tag;
use crate::limit_store::LimitStoreClient;
use crate::ratelimit::Settings;
use crate::time::{Clock, OncePerSecond, milliseconds};

/// Budgets by credential, whether a configuration lists it or a caller brings it, because Cal.com counts by credential.
#[derive(Debug)]
pub struct BudgetRegistry {
    budgets: DashMap<u128, RegistryEntry>,
    capacity: usize,
    clock: Clock,
    public: Arc<CredentialBudget>,
    /// Shared budget of unlisted credentials that the table has no capacity for: limits get tighter, memory stays bounded.
    overflow: Arc<CredentialBudget>,
    pruned: OncePerSecond,
    /// Used windows of an earlier process, for budgets that do not exist yet.
    used: Mutex<UsedWindows>,
    /// Limit store, and the time after which an admitted request has a response.
    store: Option<(Arc<LimitStoreClient>, Duration)>,
}

#[derive(Debug)]
struct RegistryEntry {
    budget: Arc<CredentialBudget>,
    /// Whether the configuration lists the credential, and so decides about its settings.
    is_listed: bool,
}

/// Returns the key of the credential that a request is sent with; `None` if there is none.
pub fn identity(auth_headers: &AuthHeaders) -> Option<u128> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    match auth_headers {
        AuthHeaders::Nothing => None,
        AuthHeaders::Bearer(value) => Some(credential_hash(&[text(value).trim_start_matches("Bearer ")])),
        AuthHeaders::Client { id, secret } => Some(credential_hash(&[&text(id), &text(secret)])),
    }
}

/// Key in the record for calls without a credential.
const PUBLIC_KEY: u128 = 1;

/// Returns the milliseconds since 1970 by this machine's calendar.
#[expect(clippy::disallowed_methods, reason = "the offset between the budgets' clock and the time of day")]
fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    milliseconds(since)
}

impl BudgetRegistry {
    /// Creates a registry for about `capacity` unlisted credentials at once.
    pub fn new(capacity: usize, settings: Settings, store: Option<(Arc<LimitStoreClient>, Duration)>) -> Self {
        let clock = Clock::start();
        let fresh = |name: &str| Arc::new(CredentialBudget::new(name.into(), settings, clock, None));
        Self {
            budgets: DashMap::new(),
            capacity,
            clock,
            public: fresh("(public)"),
            overflow: fresh("(unlisted)"),
            pruned: OncePerSecond::default(),
            used: Mutex::default(),
            store,
        }
    }

    /// Returns the budget of a configured credential, with its settings. Gateways that share it use `tag`.
    pub fn configured(
        &self,
        identity: u128,
        tag: &Arc<str>,
        name: &Arc<str>,
        settings: Settings,
    ) -> Arc<CredentialBudget> {
        let fresh = || self.fresh(identity, self.membership(identity, tag.clone(), true), name.clone(), settings);
        let mut known = self.budgets.entry(identity).or_insert_with(fresh);
        known.is_listed = true;
        let budget = known.budget.clone();
        drop(known);
        budget.configure(settings);
        budget.watch_limit();
        budget
    }

    /// Returns the budget of the API key `key` that replaced the key of `configured`. Cal.com counts it separately, so it starts
    /// unused, with the same settings.
    pub fn replacing(&self, key: u128, configured: &Arc<CredentialBudget>) -> Arc<CredentialBudget> {
        let tag = || configured.tag().unwrap_or_else(|| hash_tag(key));
        let settings = configured.settings();
        let fresh = || self.fresh(key, self.membership(key, tag(), true), configured.name(), settings);
        let mut known = self.budgets.entry(key).or_insert_with(fresh);
        known.is_listed = true;
        let budget = known.budget.clone();
        drop(known);
        budget.configure(settings);
        budget.watch_limit();
        configured.replace_by(&budget);
        budget
    }

    /// Starts the memberships of all budgets in the limit store.
    pub fn start(&self) {
        self.budgets.iter().for_each(|known| known.budget.start());
    }

    /// Says goodbye to the limit store for all budgets.
    pub async fn stop(&self) {
        let budgets: Vec<_> = self.budgets.iter().map(|known| known.budget.clone()).collect();
        for budget in budgets {
            budget.stop().await;
        }
    }

    /// Returns the budget of calls without a credential. Cal.com counts them by address, and all calls of this gateway come from
    /// one.
    pub fn shared_public(&self, settings: Settings) -> Arc<CredentialBudget> {
        self.public.configure(settings.of(API_KEY_PER_MINUTE));
        self.public.clone()
    }

    /// Returns the budget of a credential that no configuration lists: one that a caller brought, or the token of a managed user.
    /// A credential that is configured too has its configured budget. The others receive their settings here, because a reload
    /// does not reach them.
    pub fn dynamic(&self, key: u128, name: &str, settings: Settings) -> Arc<CredentialBudget> {
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
        let fresh = || self.fresh(key, self.membership(key, hash_tag(key), false), name.into(), settings);
        self.budgets.entry(key).or_insert_with(fresh).budget.clone()
    }

    /// Returns the used parts of Cal.com's open windows at `now`, in milliseconds since 1970. See [`CredentialBudget::record`].
    pub fn used(&self, now: u64, leaves_room: bool) -> UsedWindows {
        let mut used = UsedWindows::default();
        self.public.record(PUBLIC_KEY, &mut used, now, leaves_room);
        // Listed budgets come first: there are few, and most requests need their record.
        for is_listed in [true, false] {
            for known in self.budgets.iter().filter(|known| known.is_listed == is_listed) {
                if used.is_full() {
                    return used;
                }
                known.budget.record(*known.key(), &mut used, now, leaves_room);
            }
        }
        used
    }

    /// Restores the windows that an earlier process used, at `now`, in milliseconds since 1970. New budgets restore theirs when
    /// they are created.
    pub fn restore(&self, mut used: UsedWindows, now: u64) {
        self.public.restore(used.take(PUBLIC_KEY), now);
        for known in &self.budgets {
            known.budget.restore(used.take(*known.key()), now);
        }
        *self.used.lock() = used;
    }

    /// Removes unused budgets, at most once per second, because it looks at all of them.
    fn prune(&self) {
        if self.pruned.try_start(self.clock.now()) {
            self.budgets.retain(|_, RegistryEntry { budget, .. }| Arc::strong_count(budget) > 1 || !budget.is_unused());
        }
    }

    fn fresh(&self, key: u128, member: Option<Membership>, name: Arc<str>, settings: Settings) -> RegistryEntry {
        let budget = Arc::new(CredentialBudget::new(name, settings, self.clock, member));
        let used = self.used.lock().take(key);
        if !used.is_empty() {
            budget.restore(used, wall());
        }
        RegistryEntry { budget, is_listed: false }
    }

    fn membership(&self, identity: u128, tag: Arc<str>, is_persistent: bool) -> Option<Membership> {
        let (store, deadline) = self.store.clone()?;
        Some(Membership::new(store, tag, &hash_tag(identity), deadline, is_persistent))
    }
}
