//! The gateway's state: what a configuration makes ([`App`], swapped whole on reload) and what outlives it
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
use crate::limit_store::SharedStore;
use crate::limit_store::circuit_breaker::State;
use crate::refresh::Keeper;
use crate::refresh::token_endpoint::CalCom;
use crate::telemetry::{AccessLog, Metrics};
use crate::time::Clock;

/// Everything that one configuration decides.
#[derive(Debug)]
pub struct App {
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
    pub buckets: Limits,
    /// As whom.
    pub credentials: Credentials,
    /// May the credential now.
    pub budget: Arc<Budgets>,
    /// Where limits are that other gateways share.
    pub sharing: Option<Arc<SharedStore>>,
    /// Where Cal.com is.
    pub upstream: Arc<Upstream>,
    /// Sizes, counts and deadlines.
    pub limits: Bounds,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// Pages that may call from a browser.
    pub cors: Cors,
    /// Whether requests are written to the access log.
    pub access_log: bool,
}

impl App {
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
    app: ArcSwap<App>,
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
    phase: watch::Sender<Phase>,
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
        let app = App::build(config, None)?;
        let keeper = vault.map(|vault| Keeper::new(vault, app.credentials.holders.clone(), app.cal_com()));
        Ok(Arc::new(Self {
            keeper,
            app: ArcSwap::from_pointee(app),
            clock: Clock::start(),
            metrics: Metrics::default(),
            access_log,
            room: [const { AtomicUsize::new(usize::MAX) }; 2],
            in_flight: Arc::default(),
            connections: Arc::default(),
            phase: watch::Sender::new(Phase::Serving),
            is_over: AtomicBool::new(false),
        }))
    }

    /// The configuration in force.
    pub fn app(&self) -> Arc<App> {
        self.app.load_full()
    }

    /// Puts a new configuration in force, whole. Requests that are under way end by the one they began with; every bucket
    /// stays as it is.
    ///
    /// # Errors
    /// What in the configuration cannot be used; the old one stays in force.
    pub fn replace(&self, config: Config) -> Result<(), String> {
        let config = config.with_token_store(self.keeper.is_some())?;
        let app = App::build(config, Some(&self.app()))?;
        if let Some(keeper) = &self.keeper {
            keeper.ask_by(app.cal_com());
        }
        self.app.store(Arc::new(app));
        Ok(())
    }

    /// Begins to share limits with the other gateways on the store, if one is configured.
    ///
    /// # Errors
    /// Why that cannot be begun; a store that does not answer is no such reason.
    pub fn start_sharing(&self) -> Result<(), String> {
        let app = self.app();
        let Some(store) = &app.sharing else { return Ok(()) };
        store.start(app.upstream.response_within())?;
        app.budget.table.begin();
        Ok(())
    }

    /// Goes on from what an earlier process has used of Cal.com's windows, where a token store has that.
    pub async fn restore_used(&self) {
        if let Some(keeper) = &self.keeper {
            let budget = self.app().budget.clone();
            keeper.restore_used(&budget.table, budget.settings.window).await;
        }
    }

    /// Records what this process has used of Cal.com's windows.
    pub async fn record_used(&self) {
        if let Some(keeper) = &self.keeper {
            let budget = self.app().budget.clone();
            keeper.record_used_at_end(&budget.table, budget.settings.window).await;
        }
    }

    /// Says goodbye to the other gateways on the store.
    pub async fn end_sharing(&self) {
        let app = self.app();
        if app.sharing.is_some() {
            app.budget.table.end().await;
        }
    }

    /// How the store of shared limits stands, if there is one.
    pub fn shared_store(&self) -> Option<State> {
        self.app().sharing.as_ref().map(|store| store.figures().state)
    }

    /// Takes no more than so many connections, and requests at once, whatever is configured.
    pub fn set_room(&self, connections: usize, in_flight: usize) {
        let [for_connections, for_requests] = &self.room;
        for_connections.store(connections, Ordering::Relaxed);
        for_requests.store(in_flight, Ordering::Relaxed);
    }

    /// A place among the requests in flight, unless `most` are taken.
    pub fn admit(&self, most: usize) -> Option<Place> {
        let [_, room] = &self.room;
        Place::take(&self.in_flight, most.min(room.load(Ordering::Relaxed)))
    }

    /// A place among the open connections, unless `most` are taken.
    pub fn open_connection(&self, most: usize) -> Option<Place> {
        let [room, _] = &self.room;
        Place::take(&self.connections, most.min(room.load(Ordering::Relaxed)))
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
        self.metrics.budgets.tell(&self.app().budget.standings());
        self.metrics.set_credentials(self.app().credentials.holders.states());
        if let Some(store) = &self.app().sharing {
            self.metrics.sharing.tell(&store.figures());
        }
        self.metrics.encode()
    }

    /// How many requests are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Renewable credentials that are not as they should be, and how they are.
    pub fn troubled_credentials(&self) -> Vec<(String, &'static str)> {
        if self.keeper.is_some() { self.app().credentials.holders.troubled() } else { Vec::new() }
    }

    /// Goes on to the next phase, and tells all that wait for it.
    pub fn enter(&self, phase: Phase) {
        self.is_over.store(phase == Phase::Over, Ordering::Relaxed);
        self.phase.send_replace(phase);
    }

    /// How far its end has come.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Returns whether requests without a response are given up now.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Each phase as it is entered.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}

/// How far the gateway's end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// New work may be sent to it.
    Serving,
    /// No more connections are accepted; requests in flight end.
    Draining,
    /// What is still in flight is given up.
    Over,
}

/// A place among a bounded number; dropping it frees it.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Place {
    /// Takes a place, unless `most` are taken.
    pub(crate) fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let before = taken.fetch_add(1, Ordering::Relaxed);
        let place = Self(taken.clone());
        (before < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All the keyed buckets that a new gateway starts with.
fn new_keyed(limits: &Bounds) -> Arc<Keyed> {
    Arc::new(Keyed::new(limits.tracked_callers))
}
