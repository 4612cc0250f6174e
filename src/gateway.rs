//! State of the process: the snapshot of the configuration in force, the lifecycle, the capacity, and what outlives a reload.

mod build;
mod build_budgets;
mod capacity;
mod handle;
mod lifecycle;
mod snapshot;
mod tiers;
mod token_store;

use std::sync::Arc;

use arc_swap::ArcSwap;

pub use capacity::{Capacity, CapacityPermit};
pub use handle::GatewayHandle;
pub use lifecycle::{Lifecycle, LifecycleState};
pub use snapshot::Snapshot;
pub use token_store::{check_token_store, token_store};

use crate::config::Config;
use crate::refresh::TokenRefresher;
use crate::telemetry::{AccessLog, Metrics};
use crate::time::Clock;

/// The gateway: one for each process.
#[derive(Debug)]
pub struct Gateway {
    snapshot: ArcSwap<Snapshot>,
    /// Running, draining or stopped.
    pub lifecycle: Lifecycle,
    /// Connections and requests at once.
    pub capacity: Capacity,
    /// The clock of buckets and budgets.
    pub clock: Clock,
    /// All metrics.
    pub metrics: Metrics,
    /// The access log, if there is one.
    pub access_log: Option<AccessLog>,
    /// Renews tokens, if there is a token store.
    pub refresher: Option<Arc<TokenRefresher>>,
}

impl Gateway {
    /// Builds the gateway of a configuration.
    ///
    /// # Errors
    /// The part of the configuration that cannot be used.
    pub fn new(config: Config, access_log: Option<AccessLog>) -> Result<Arc<Self>, String> {
        let vault = config.token_store.as_ref().map(token_store).transpose()?;
        let snapshot = Snapshot::build(config, None)?;
        let refresher =
            vault.map(|vault| TokenRefresher::new(vault, snapshot.credentials.registry.clone(), snapshot.cal_client()));
        Ok(Arc::new(Self {
            refresher,
            snapshot: ArcSwap::from_pointee(snapshot),
            lifecycle: Lifecycle::default(),
            capacity: Capacity::default(),
            clock: Clock::start(),
            metrics: Metrics::default(),
            access_log,
        }))
    }

    /// Returns the state of the configuration in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts a new configuration in force. A request keeps the snapshot that it started with. Buckets keep their state.
    ///
    /// # Errors
    /// The part of the configuration that cannot be used. The old configuration then stays in force.
    pub fn replace(&self, config: Config) -> Result<(), String> {
        let config = config.with_token_store(self.refresher.is_some())?;
        let snapshot = Snapshot::build(config, Some(&self.snapshot()))?;
        if let Some(refresher) = &self.refresher {
            refresher.set_client(snapshot.cal_client());
        }
        self.snapshot.store(Arc::new(snapshot));
        Ok(())
    }

    /// Restores how much of Cal.com's windows an earlier process used, if there is a token store.
    pub async fn restore_used(&self) {
        if let Some(refresher) = &self.refresher {
            let budget = self.snapshot().budget.clone();
            refresher.restore_used(&budget.registry, budget.settings.window).await;
        }
    }

    /// Stores how much of Cal.com's windows this process used, if there is a token store.
    pub async fn record_used(&self) {
        if let Some(refresher) = &self.refresher {
            let budget = self.snapshot().budget.clone();
            refresher.record_used_at_end(&budget.registry).await;
        }
    }

    /// Returns renewable credentials that have no valid token, or soon have none, with their state.
    pub fn unhealthy_credentials(&self) -> Vec<(String, &'static str)> {
        if self.refresher.is_some() { self.snapshot().credentials.registry.unhealthy() } else { Vec::new() }
    }
}
