//! Sixth stage: does the credential have quota left at Cal.com?
//!
//! [`Budgets::reserve`] returns a [`Slot`], makes the request wait for one, or refuses. No request is sent without a slot. The
//! buckets of consumers are the contract with each consumer. A budget follows Cal.com's count of the requests of a credential in
//! fixed windows. Cal.com blocks a credential that sends one request too many (FACTS §2).
//!
//! [`limiter`](crate::ratelimit::limiter) decides. This module gives it a lock and a timer, and keeps it over reloads.

mod credential_budget;
mod membership;
mod registry;
mod slot;
pub mod used_windows;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

pub use credential_budget::CredentialBudget;
pub use registry::{BudgetRegistry, identity};
pub use slot::Slot;

use crate::catalog::{Endpoint, RouteMatch};
use crate::credential::{AuthHeaders, UpstreamAuth};
use crate::headers::{CLIENT_ID, SECRET_KEY};
use crate::identify::{ConsumerId, Identity, credential_hash};
use crate::limit::{PendingCharge, Permit};
use crate::ratelimit::fair_queue::{Flow, Priority};
use crate::ratelimit::status::BudgetStatus;
use crate::ratelimit::usage_headers::name_hash;
use crate::ratelimit::{Settings, Tier};
use crate::refusal::Refusal;

/// `[budget] mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BudgetMode {
    /// Requests wait or are refused, so that the limit is never exceeded.
    #[default]
    Enforce,
    /// Requests are sent, and those that would have been throttled are counted.
    Observe,
    /// Cal.com has no limiter, so nothing is counted.
    Off,
}

/// The budgets of a consumer's credential. The injected secret decides which of them counts a request.
#[derive(Debug)]
pub struct ConsumerBudgets {
    /// Key of the consumer in the fair queue, the same after a reload.
    pub flow_key: u64,
    /// The consumer's tier.
    pub tier: Arc<Tier>,
    /// Name of the credential in the configuration.
    pub credential: Arc<str>,
    /// Budget of its API key or access token.
    pub bearer: Option<Arc<CredentialBudget>>,
    /// Budget of its platform client.
    pub client: Option<Arc<CredentialBudget>>,
    /// Requests per minute that Cal.com grants the token of each managed user.
    pub managed_user_requests_per_minute: u32,
}

/// The budgets of all callers, for one configuration.
#[derive(Debug)]
pub struct Budgets {
    /// `[budget] mode`.
    pub mode: BudgetMode,
    /// Budgets of consumers, by [`ConsumerId`].
    pub consumers: Vec<ConsumerBudgets>,
    /// Tier of callers without a credential.
    pub public: Arc<Tier>,
    /// Tier of passthrough callers.
    pub passthrough: Arc<Tier>,
    /// Settings of all budgets, except the limit.
    pub settings: Settings,
    /// Time after which a sent request has arrived at Cal.com, if it ever does.
    pub deadline: Duration,
    /// The budgets that outlive reloads.
    pub registry: Arc<BudgetRegistry>,
}

impl Budgets {
    /// Reserves a slot in the budget of the credential in `access`. Waits for it as long as the caller's tier allows, and no
    /// longer than `caller_waits`.
    ///
    /// # Errors
    /// [`Refusal::UpstreamBudget`] if the wait would be longer. If that is known beforehand, the refusal comes at once.
    pub async fn reserve(
        &self,
        permit: &Permit<'_>,
        access: &UpstreamAuth,
        caller_waits: Option<Duration>,
    ) -> Result<Slot, Refusal> {
        self.reserve_with(permit, access, caller_waits, permit.pending_charge()).await
    }

    /// Reserves a slot for a retry with another `access`. The consumer is already charged.
    ///
    /// # Errors
    /// Those of [`Budgets::reserve`].
    pub async fn reserve_retry(
        &self,
        permit: &Permit<'_>,
        access: &UpstreamAuth,
        caller_waits: Option<Duration>,
    ) -> Result<Slot, Refusal> {
        self.reserve_with(permit, access, caller_waits, None).await
    }

    async fn reserve_with(
        &self,
        permit: &Permit<'_>,
        access: &UpstreamAuth,
        caller_waits: Option<Duration>,
        pending: Option<&PendingCharge<'_>>,
    ) -> Result<Slot, Refusal> {
        if self.mode == BudgetMode::Off {
            if let Some(pending) = pending {
                Box::pin(pending.charge()).await?;
            }
            return Ok(Slot::unlimited());
        }
        let grant = permit.grant();
        let (main, tier, flow_key) = match grant.caller().identity() {
            Identity::Consumer(consumer) => {
                let own = self.consumers.get(consumer.id.index()).ok_or(Refusal::Internal)?;
                (self.budget_of(own, access), &own.tier, own.flow_key)
            }
            Identity::Public(address) => {
                (self.registry.shared_public(self.settings), &self.public, flow_of_address(address.as_u128()))
            }
            Identity::Passthrough(_) => {
                let settings = self.settings.of(default_limit(access.auth_headers()));
                let main = match registry::identity(access.auth_headers()) {
                    Some(key) => self.registry.dynamic(key, "(passthrough)", settings),
                    None => self.registry.shared_public(self.settings),
                };
                // Each passthrough credential has a budget of its own.
                (main, &self.passthrough, 0)
            }
        };
        let matched = grant.route();
        let budget = self.sub_budget(&main, matched.endpoint(), || matched_key(matched)).unwrap_or(main);
        let scheduling = tier.scheduling;
        let patience = caller_waits.unwrap_or(scheduling.max_wait).min(scheduling.max_wait);
        budget.start();
        Slot::reserve(budget, self.mode, scheduling.flow(flow_key), patience, self.deadline, pending).await
    }

    /// Reserves a slot for a call of the gateway itself, which sends `headers`.
    ///
    /// # Errors
    /// [`Refusal::UpstreamBudget`] if none is free within `[budget] max_wait`.
    pub async fn reserve_internal(&self, headers: &HeaderMap) -> Result<Slot, Refusal> {
        if self.mode == BudgetMode::Off {
            return Ok(Slot::unlimited());
        }
        let client = headers.get(CLIENT_ID).zip(headers.get(SECRET_KEY));
        let client = client.map(|(id, secret)| AuthHeaders::Client { id: id.clone(), secret: secret.clone() });
        let budget = match client.as_ref().and_then(identity) {
            Some(key) => self.registry.dynamic(key, "(own)", self.settings.of(OAUTH_PER_MINUTE)),
            None => self.registry.shared_public(self.settings),
        };
        let flow = Flow { key: GATEWAY_FLOW, weight: API_KEY_PER_MINUTE, priority: Priority::Interactive };
        budget.start();
        Slot::reserve(budget, self.mode, flow, self.public.scheduling.max_wait, self.deadline, None).await
    }

    /// Returns the budget that counts a consumer's request with `access`.
    fn budget_of(&self, own: &ConsumerBudgets, access: &UpstreamAuth) -> Arc<CredentialBudget> {
        if let Some((credential, user)) = access.managed_user() {
            // Cal.com counts the token of each user separately (FACTS §2).
            let key = credential_hash(&["managed", credential, &user.to_string()]);
            let settings = self.settings.of(own.managed_user_requests_per_minute);
            return self.registry.dynamic(key, credential, settings);
        }
        if let Some((key, configured)) = access.replacing_key().zip(own.bearer.as_ref()) {
            return self.registry.replacing(key, configured);
        }
        let known = match access.auth_headers() {
            AuthHeaders::Bearer(_) => &own.bearer,
            AuthHeaders::Client { .. } => &own.client,
            AuthHeaders::Nothing => &None,
        };
        known.clone().unwrap_or_else(|| self.registry.shared_public(self.settings))
    }

    /// Returns the budget of an operation that Cal.com counts separately, as the catalog lists it or as responses reported it.
    fn sub_budget(
        &self,
        main: &Arc<CredentialBudget>,
        endpoint: Option<&Endpoint>,
        key: impl FnOnce() -> u64,
    ) -> Option<Arc<CredentialBudget>> {
        let listed = endpoint.and_then(|endpoint| endpoint.sub_limit);
        if listed.is_none() && !main.has_learned() {
            return None;
        }
        let settings = Settings { learn_limit: false, ..self.settings };
        main.sub_budget(key(), listed.map(|listed| settings.of(listed.requests_per_minute)))
    }

    /// Returns the state of the budget for a consumer's request to `endpoint`, and whether that budget is the operation's own.
    /// Otherwise it is that of the bearer credential, or of the client if there is no bearer.
    pub fn status_of(&self, consumer: ConsumerId, endpoint: Option<&Endpoint>) -> Option<(BudgetStatus, bool)> {
        let own = self.consumers.get(consumer.index())?;
        let main = own.bearer.as_ref().or(own.client.as_ref())?;
        let apart = endpoint.and_then(|endpoint| {
            self.sub_budget(main, Some(endpoint), || {
                operation_key(endpoint.method.as_str(), endpoint.template.as_str())
            })
        });
        Some((apart.as_ref().unwrap_or(main).status(), apart.is_some()))
    }

    /// Returns the state of each credential's budgets, by the credential's name and the kind of secret.
    pub fn statuses(&self) -> Vec<(Arc<str>, &'static str, BudgetStatus)> {
        let mut statuses: Vec<(Arc<str>, &'static str, BudgetStatus)> = Vec::new();
        for own in &self.consumers {
            for (kind, budget) in [("bearer", &own.bearer), ("client", &own.client)] {
                let known = statuses.iter().any(|(name, k, _)| *name == own.credential && *k == kind);
                if let Some(budget) = budget.as_ref().filter(|_| !known) {
                    statuses.push((own.credential.clone(), kind, budget.status()));
                }
            }
        }
        statuses.push(("(public)".into(), "none", self.registry.shared_public(self.settings).status()));
        statuses
    }
}

/// Returns the key of an operation among those of its credential.
pub fn operation_key(method: &str, path: &str) -> u64 {
    name_hash(method) ^ name_hash(path)
}

/// Returns the key of a request's operation. A request that the catalog does not contain is identified by its path.
pub fn matched_key(matched: &RouteMatch<'_>) -> u64 {
    if let Some(endpoint) = matched.endpoint() {
        return operation_key(endpoint.method.as_str(), endpoint.template.as_str());
    }
    let mut path = String::new();
    matched.write_upstream_path(&mut path);
    name_hash(&path)
}

/// Returns Cal.com's default limit (FACTS §2). Access tokens and clients have more than API keys.
fn default_limit(auth_headers: &AuthHeaders) -> u32 {
    match auth_headers {
        AuthHeaders::Bearer(value) if !value.as_bytes().starts_with(b"Bearer cal_") => OAUTH_PER_MINUTE,
        AuthHeaders::Bearer(_) | AuthHeaders::Nothing => API_KEY_PER_MINUTE,
        AuthHeaders::Client { .. } => OAUTH_PER_MINUTE,
    }
}

/// Requests per minute of an API key, and of an address without a credential (FACTS §2).
pub const API_KEY_PER_MINUTE: u32 = 120;

/// Requests per minute of an access token and of a platform client (FACTS §2).
pub const OAUTH_PER_MINUTE: u32 = 500;

/// Flow key of the gateway's own calls.
const GATEWAY_FLOW: u64 = u64::MAX;

/// Returns the flow key of a client address.
#[expect(clippy::cast_possible_truncation, reason = "the halves are folded")]
fn flow_of_address(address: u128) -> u64 {
    ((address >> 64) as u64 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
