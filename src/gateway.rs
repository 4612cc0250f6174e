//! The gateway's state: what a configuration makes ([`Snapshot`], swapped whole on reload) and what outlives it
//! ([`Gateway`]).

mod build;
mod build_budgets;
mod token_store;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;

pub use token_store::{check_token_store, token_store};

use crate::budget::Budgets;
use crate::catalog::{Catalog, UnknownEndpoints};
use crate::config::Config;
use crate::config::limits::Bounds;
use crate::credential::Credentials;
use crate::entitle::{Entitlements, Plan};
use crate::forward::Upstream;
use crate::headers::Cors;
use crate::identify::{Consumers, KeylessAccess, LeakGuard, TrustedProxies};
use crate::limit::{Keyed, Limits};
use crate::limit_store::LimitStoreClient;
use crate::limit_store::circuit_breaker::BreakerState;
use crate::refresh::Keeper;
use crate::refresh::token_endpoint::CalCom;
use crate::telemetry::{AccessLog, Metrics};
use crate::time::Clock;

/// Everything that one configuration decides.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts configurations, so that what is cached of an older one can be told.
    pub generation: u64,
    /// The operator's own catalog, if any.
    own_catalog: Option<Catalog>,
    /// What happens to paths outside the catalog.
    pub unknown_endpoints: UnknownEndpoints,
    /// Who asks.
    pub consumers: Consumers,
    /// Where requests without a key may come from.
    pub keyless: KeylessAccess,
    /// What may stand in no request's target.
    pub leaks: LeakGuard,
    /// May they.
    pub entitlements: Entitlements,
    /// May they now.
    pub rate_limits: Limits,
    /// As whom.
    pub credentials: Credentials,
    /// May the credential now.
    pub budget: Arc<Budgets>,
    /// Where limits are that other gateways share.
    pub limit_store: Option<Arc<LimitStoreClient>>,
    /// Where Cal.com is.
    pub upstream: Arc<Upstream>,
    /// Sizes, counts and deadlines.
    pub bounds: Bounds,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// Pages that may call from a browser.
    pub cors: Cors,
    /// Whether requests are written to the access log.
    pub access_log: bool,
}

impl Snapshot {
    /// The operations the gateway knows.
    pub fn catalog(&self) -> &Catalog {
        self.own_catalog.as_ref().unwrap_or_else(|| Catalog::built_in())
    }

    /// How the gateway makes calls of its own.
    fn cal_com(&self) -> CalCom {
        CalCom { upstream: self.upstream.clone(), budgets: Some(self.budget.clone()) }
    }

    /// The plan a consumer is held to.
    pub fn plan_of(&self, consumer: crate::identify::ConsumerId) -> Option<&Plan> {
        self.entitlements.of(consumer).map(|entitlement| &*entitlement.plan)
    }
}

/// What outlives a reload: the clock, the counters, the buckets of callers that no configuration lists.
#[derive(Debug)]
pub struct Gateway {
    snapshot: ArcSwap<Snapshot>,
    /// The buckets' clock.
    pub clock: Clock,
    /// All metrics.
    pub metrics: Metrics,
    /// The access log, unless nobody reads it.
    pub access_log: Option<AccessLog>,
    /// What keeps renewable credentials good, where there is a store for them.
    pub keeper: Option<Arc<Keeper>>,
    /// Connections, and requests in flight, that the system has files for, whatever is configured.
    room: [AtomicUsize; 2],
    in_flight: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    phase: watch::Sender<LifecycleState>,
    /// Whether the last phase has been entered. Reading it costs less than reading the phase.
    is_over: AtomicBool,
}

impl Gateway {
    /// The gateway of a configuration.
    ///
    /// # Errors
    /// What in the configuration cannot be used.
    pub fn new(config: Config, access_log: Option<AccessLog>) -> Result<Arc<Self>, String> {
        let vault = config.token_store.as_ref().map(token_store).transpose()?;
        let snapshot = Snapshot::build(config, None)?;
        let keeper = vault.map(|vault| Keeper::new(vault, snapshot.credentials.holders.clone(), snapshot.cal_com()));
        Ok(Arc::new(Self {
            keeper,
            snapshot: ArcSwap::from_pointee(snapshot),
            clock: Clock::start(),
            metrics: Metrics::default(),
            access_log,
            room: [const { AtomicUsize::new(usize::MAX) }; 2],
            in_flight: Arc::default(),
            connections: Arc::default(),
            phase: watch::Sender::new(LifecycleState::Running),
            is_over: AtomicBool::new(false),
        }))
    }

    /// The configuration in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts a new configuration in force, whole. Requests that are under way end by the one they began with; every bucket
    /// stays as it is.
    ///
    /// # Errors
    /// What in the configuration cannot be used; the old one stays in force.
    pub fn replace(&self, config: Config) -> Result<(), String> {
        let config = config.with_token_store(self.keeper.is_some())?;
        let snapshot = Snapshot::build(config, Some(&self.snapshot()))?;
        if let Some(keeper) = &self.keeper {
            keeper.ask_by(snapshot.cal_com());
        }
        self.snapshot.store(Arc::new(snapshot));
        Ok(())
    }

    /// Begins to share limits with the other gateways on the store, if one is configured.
    ///
    /// # Errors
    /// Why that cannot be begun; a store that does not answer is no such reason.
    pub fn start_limit_store(&self) -> Result<(), String> {
        let snapshot = self.snapshot();
        let Some(store) = &snapshot.limit_store else { return Ok(()) };
        store.start(snapshot.upstream.response_within())?;
        snapshot.budget.table.begin();
        Ok(())
    }

    /// Goes on from what an earlier process has used of Cal.com's windows, where a token store has that.
    pub async fn restore_used(&self) {
        if let Some(keeper) = &self.keeper {
            let budget = self.snapshot().budget.clone();
            keeper.restore_used(&budget.table, budget.settings.window).await;
        }
    }

    /// Records what this process has used of Cal.com's windows.
    pub async fn record_used(&self) {
        if let Some(keeper) = &self.keeper {
            let budget = self.snapshot().budget.clone();
            keeper.record_used_at_end(&budget.table, budget.settings.window).await;
        }
    }

    /// Says goodbye to the other gateways on the store.
    pub async fn stop_limit_store(&self) {
        let snapshot = self.snapshot();
        if snapshot.limit_store.is_some() {
            snapshot.budget.table.end().await;
        }
    }

    /// How the store of shared limits stands, if there is one.
    pub fn shared_store(&self) -> Option<BreakerState> {
        self.snapshot().limit_store.as_ref().map(|store| store.stats().state)
    }

    /// Takes no more than so many connections, and requests at once, whatever is configured.
    pub fn set_room(&self, connections: usize, in_flight: usize) {
        let [for_connections, for_requests] = &self.room;
        for_connections.store(connections, Ordering::Relaxed);
        for_requests.store(in_flight, Ordering::Relaxed);
    }

    /// A place among the requests in flight, unless `most` are taken.
    pub fn admit(&self, most: usize) -> Option<CapacityPermit> {
        let [_, room] = &self.room;
        CapacityPermit::try_acquire(&self.in_flight, most.min(room.load(Ordering::Relaxed)))
    }

    /// A place among the open connections, unless `most` are taken.
    pub fn open_connection(&self, most: usize) -> Option<CapacityPermit> {
        let [room, _] = &self.room;
        CapacityPermit::try_acquire(&self.connections, most.min(room.load(Ordering::Relaxed)))
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// All metrics in the Prometheus text format.
    pub fn encode_metrics(&self) -> String {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.in_flight.set(gauge(self.in_flight()));
        self.metrics.connections.set(gauge(self.connections()));
        self.metrics.budgets.tell(&self.snapshot().budget.standings());
        self.metrics.set_credentials(self.snapshot().credentials.holders.states());
        if let Some(store) = &self.snapshot().limit_store {
            self.metrics.sharing.tell(&store.stats());
        }
        self.metrics.encode()
    }

    /// How many requests are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Renewable credentials that are not as they should be, and how they are.
    pub fn unhealthy_credentials(&self) -> Vec<(String, &'static str)> {
        if self.keeper.is_some() { self.snapshot().credentials.holders.troubled() } else { Vec::new() }
    }

    /// Goes on to the next phase, and tells all that wait for it.
    pub fn enter(&self, phase: LifecycleState) {
        self.is_over.store(phase == LifecycleState::Stopped, Ordering::Relaxed);
        self.phase.send_replace(phase);
    }

    /// How far its end has come.
    pub fn phase(&self) -> LifecycleState {
        *self.phase.borrow()
    }

    /// Returns whether requests without a response are given up now.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Each phase as it is entered.
    pub fn phases(&self) -> watch::Receiver<LifecycleState> {
        self.phase.subscribe()
    }
}

/// How far the gateway's end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LifecycleState {
    /// New work may be sent to it.
    Running,
    /// No more connections are accepted; requests in flight end.
    Draining,
    /// What is still in flight is given up.
    Stopped,
}

/// A place among a bounded number; dropping it frees it.
#[derive(Debug)]
pub struct CapacityPermit(Arc<AtomicUsize>);

impl CapacityPermit {
    /// Takes a place, unless `most` are taken.
    pub(crate) fn try_acquire(taken: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let before = taken.fetch_add(1, Ordering::Relaxed);
        let place = Self(taken.clone());
        (before < most).then_some(place)
    }
}

impl Drop for CapacityPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All the keyed buckets that a new gateway starts with.
fn new_keyed(limits: &Bounds) -> Arc<Keyed> {
    Arc::new(Keyed::new(limits.tracked_callers))
}
