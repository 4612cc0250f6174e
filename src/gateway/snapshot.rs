//! Immutable state that one configuration produces. A reload builds a new one.

use std::sync::Arc;

use crate::budget::Budgets;
use crate::catalog::{Catalog, UnknownEndpoints};
use crate::config::limits::Bounds;
use crate::credential::Credentials;
use crate::entitle::{Entitlements, Plan};
use crate::forward::Upstream;
use crate::headers::Cors;
use crate::identify::{ConsumerId, Consumers, KeylessAccess, LeakGuard, TrustedProxies};
use crate::limit::Limits;
use crate::limit_store::LimitStoreClient;
use crate::limit_store::circuit_breaker::BreakerState;
use crate::refresh::token_endpoint::CalClient;

/// The state of one configuration. Its fields are in the order of the request path.
#[derive(Debug)]
pub struct Snapshot {
    /// Number of this configuration since the start of the process, so that a cache detects an older one.
    pub generation: u64,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: TrustedProxies,
    /// Limits on sizes, counts and times.
    pub bounds: Bounds,
    /// Search for secrets in request targets and forwarded headers.
    pub leaks: LeakGuard,
    /// Gateway keys and consumers.
    pub consumers: Consumers,
    /// Rules for requests without a gateway key.
    pub keyless: KeylessAccess,
    /// The operator's catalog, if the configuration has one.
    pub(super) own_catalog: Option<Catalog>,
    /// What happens to paths outside the catalog.
    pub unknown_endpoints: UnknownEndpoints,
    /// What each consumer may use.
    pub entitlements: Entitlements,
    /// Rate limits of consumers and addresses.
    pub rate_limits: Limits,
    /// Credentials for Cal.com.
    pub credentials: Credentials,
    /// Rate limits of credentials at Cal.com.
    pub budget: Arc<Budgets>,
    /// Store of the limits that several gateways share.
    pub limit_store: Option<Arc<LimitStoreClient>>,
    /// Connections to Cal.com.
    pub upstream: Arc<Upstream>,
    /// Origins that may call from a browser.
    pub cors: Cors,
    /// Whether the access log is on.
    pub access_log: bool,
}

impl Snapshot {
    /// Returns the operations that the gateway knows.
    pub fn catalog(&self) -> &Catalog {
        self.own_catalog.as_ref().unwrap_or_else(|| Catalog::built_in())
    }

    /// Returns the plan of a consumer.
    pub fn plan_of(&self, consumer: ConsumerId) -> Option<&Plan> {
        self.entitlements.of(consumer).map(|entitlement| &*entitlement.plan)
    }

    /// Starts to share limits with the other gateways on the limit store, if one is configured. A store that does not
    /// answer is not an error.
    ///
    /// # Errors
    /// Why the threads of the store could not be started.
    pub fn start_limit_store(&self) -> Result<(), String> {
        let Some(store) = &self.limit_store else { return Ok(()) };
        store.start(self.upstream.response_within())?;
        self.budget.registry.start();
        Ok(())
    }

    /// Leaves the shared budgets, so that the other gateways use this gateway's share at once.
    pub async fn stop_limit_store(&self) {
        if self.limit_store.is_some() {
            self.budget.registry.stop().await;
        }
    }

    /// Returns the state of the connection to the limit store, if one is configured.
    pub fn limit_store_state(&self) -> Option<BreakerState> {
        self.limit_store.as_ref().map(|store| store.stats().state)
    }

    /// Returns the client for the gateway's own calls to Cal.com.
    pub(super) fn cal_client(&self) -> CalClient {
        CalClient { upstream: self.upstream.clone(), budgets: Some(self.budget.clone()) }
    }
}
