//! Metrics, and the set-up of the log.
//!
//! Labels are names of the configuration and templates of the catalog, never text of a client. So the configuration bounds
//! the number of series.

mod access_log;
mod histogram;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

pub use access_log::AccessLog;
pub use histogram::ShardedHistogram;

use crate::limit_store::StoreStats;
use crate::limit_store::circuit_breaker::BreakerState;
use crate::ratelimit::status::BudgetStatus;

/// Labels of the request counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// Name of the consumer, or a placeholder for other callers.
    pub consumer: String,
    /// Method of the operation, or `-`.
    pub method: String,
    /// Path template of the operation, or `-`.
    pub endpoint: String,
    /// Code of the refusal, or `-` for a response of Cal.com.
    pub code: &'static str,
    /// HTTP status.
    pub status: u16,
}

/// Labels of the reload counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReloadLabels {
    /// `applied` or `rejected`.
    pub result: &'static str,
}

/// Labels of the counter of denials in observe mode.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ObservedLabels {
    /// Name of the consumer.
    pub consumer: String,
    /// Method of the operation.
    pub method: String,
    /// Path template of the operation.
    pub endpoint: String,
}

/// Labels of the counter of throttled requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ThrottledLabels {
    /// Name of the credential, or `-` for callers without a configured one.
    pub credential: String,
    /// Limit that throttled the request.
    pub by: &'static str,
}

/// Labels of a budget.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BudgetLabels {
    /// Name of the credential.
    pub credential: String,
    /// Part of the credential that Cal.com counts by: `bearer`, `client` or `none`.
    pub kind: &'static str,
}

/// Gauges of all budgets, updated at each scrape.
#[derive(Debug, Default)]
pub struct BudgetGauges {
    /// Requests in one window that Cal.com grants, by the configuration and by its responses.
    pub limit: Family<BudgetLabels, Gauge>,
    /// Requests in flight and within the last window.
    pub used: Family<BudgetLabels, Gauge>,
    /// Requests in flight.
    pub in_flight: Family<BudgetLabels, Gauge>,
    /// Requests in the queue.
    pub waiting: Family<BudgetLabels, Gauge>,
    /// Requests left in Cal.com's current window, if its responses report it.
    pub remaining: Family<BudgetLabels, Gauge>,
    /// Requests of other programs in one window.
    pub foreign: Family<BudgetLabels, Gauge>,
    /// 1 while no request leaves.
    pub closed: Family<BudgetLabels, Gauge>,
}

/// Metrics of the limit store, updated at each scrape.
#[derive(Debug, Default)]
pub struct LimitStoreMetrics {
    /// 1 while the gateway does not use it.
    pub degraded: Gauge,
    /// Gateways on it.
    pub gateways: Gauge,
    /// Calls.
    pub calls: Counter,
    /// Calls that failed or took too long.
    pub failures: Counter,
    /// Number of times that it became unavailable.
    pub losses: Counter,
}

/// Labels of a renewable credential.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CredentialLabels {
    /// Name in the configuration, with the managed user's id if it is one's.
    pub credential: String,
    /// `fresh`, `due`, `degraded`, `expired`, `unavailable`, `needs-login` or `loading`.
    pub state: &'static str,
}

/// Values that are read when metrics are scraped.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Requests in flight.
    pub in_flight: usize,
    /// Open connections of clients.
    pub connections: usize,
    /// Each budget: its credential, its kind, and its status.
    pub budgets: Vec<(Arc<str>, &'static str, BudgetStatus)>,
    /// Each renewable credential and its state.
    pub credentials: Vec<(String, &'static str)>,
    /// The connection to the limit store, if there is one.
    pub limit_store: Option<StoreStats>,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests, counted at the end of their response.
    pub requests: Family<RequestLabels, Counter>,
    /// Time from the head of a request until it is sent or refused.
    pub gateway_seconds: ShardedHistogram,
    /// Time from sending a request to the head of Cal.com's response.
    pub upstream_seconds: ShardedHistogram,
    /// Requests that entitlement would deny outside of observe mode.
    pub observed: Family<ObservedLabels, Counter>,
    /// Reloads of the configuration.
    pub reloads: Family<ReloadLabels, Counter>,
    /// State of each renewable credential. Managed users are included only while they have a fault, because there may be
    /// many.
    pub credentials: Family<CredentialLabels, Gauge>,
    /// Requests in flight.
    pub in_flight: Gauge,
    /// Open connections of clients.
    pub connections: Gauge,
    /// Connections beyond `limits.connections`, closed at once.
    pub connections_refused: Counter,
    /// Responses of Cal.com with status 429. There should be none.
    pub upstream_429: Counter,
    /// Requests that waited for their credential's budget, or were refused by it.
    pub held: Family<ThrottledLabels, Counter>,
    /// Time that requests waited for a budget.
    pub budget_seconds: ShardedHistogram,
    /// Budgets.
    pub budgets: BudgetGauges,
    /// Limit store.
    pub limit_store: LimitStoreMetrics,
    /// Lines of the access log that were lost because standard output was too slow.
    pub access_log_lost: Counter<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("calgate"),
            requests: Family::default(),
            gateway_seconds: ShardedHistogram::default(),
            upstream_seconds: ShardedHistogram::default(),
            observed: Family::default(),
            reloads: Family::default(),
            credentials: Family::default(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            upstream_429: Counter::default(),
            held: Family::default(),
            budget_seconds: ShardedHistogram::default(),
            budgets: BudgetGauges::default(),
            limit_store: LimitStoreMetrics::default(),
            access_log_lost: Counter::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn update_credentials(&self, states: &[(String, &'static str)]) {
        self.credentials.clear();
        for (credential, state) in states {
            if !credential.contains('/') || !matches!(*state, "fresh" | "due") {
                self.credentials.get_or_create(&CredentialLabels { credential: credential.clone(), state }).set(1);
            }
        }
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("credentials", "Renewable credentials, by the state that each is in", self.credentials.clone());
        r.register("requests", "Requests answered, by whom, for what and how", self.requests.clone());
        r.register(
            "gateway_seconds",
            "Time the gateway added before sending or refusing",
            self.gateway_seconds.clone(),
        );
        r.register(
            "upstream_seconds",
            "Time from sending to the head of Cal.com's answer",
            self.upstream_seconds.clone(),
        );
        r.register("observed_refusals", "Requests let through that would be refused", self.observed.clone());
        r.register("config_reloads", "Reloads of the configuration", self.reloads.clone());
        r.register("requests_in_flight", "Requests in flight", self.in_flight.clone());
        r.register("connections", "Open connections of callers", self.connections.clone());
        r.register("connections_refused", "Connections over limits.connections", self.connections_refused.clone());
        r.register(
            "upstream_429",
            "Answers of 429 from Cal.com; the log names the credential",
            self.upstream_429.clone(),
        );
        r.register(
            "budget_held",
            "Requests that waited for a credential's budget, or were refused by it",
            self.held.clone(),
        );
        r.register(
            "budget_wait_seconds",
            "Time requests waited for a credential's budget",
            self.budget_seconds.clone(),
        );
        self.budgets.register(r);
        self.limit_store.register(r);
        r.register("access_log_lost_lines", "Access log lines lost to a slow reader", self.access_log_lost.clone());
    }

    /// Returns all metrics in the `OpenMetrics` text format. `gauges` are the current values.
    pub fn encode(&self, gauges: &Gauges) -> String {
        let as_gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.in_flight.set(as_gauge(gauges.in_flight));
        self.connections.set(as_gauge(gauges.connections));
        self.budgets.update(&gauges.budgets);
        self.update_credentials(&gauges.credentials);
        if let Some(stats) = &gauges.limit_store {
            self.limit_store.update(stats);
        }
        let mut out = String::new();
        if prometheus_client::encoding::text::encode(&mut out, &self.registry).is_err() {
            let _ = writeln!(out, "# encoding failed");
        }
        out
    }
}

impl BudgetGauges {
    fn register(&self, r: &mut Registry) {
        r.register("budget_limit", "Requests a window that Cal.com grants", self.limit.clone());
        r.register("budget_used", "Requests in flight and within the last window", self.used.clone());
        r.register("budget_in_flight", "Requests in flight on a credential", self.in_flight.clone());
        r.register("budget_waiting", "Requests that wait for a credential's budget", self.waiting.clone());
        r.register("budget_remaining", "What is left of Cal.com's window, by its answers", self.remaining.clone());
        r.register(
            "budget_foreign",
            "Requests of others on the credential in one window, seen, or suspected for an hour after a 429",
            self.foreign.clone(),
        );
        r.register("budget_closed", "1 while nothing goes out on a credential", self.closed.clone());
    }

    /// Updates the gauges. Those of removed budgets disappear.
    fn update(&self, budgets: &[(Arc<str>, &'static str, BudgetStatus)]) {
        let all =
            [&self.limit, &self.used, &self.in_flight, &self.waiting, &self.remaining, &self.foreign, &self.closed];
        for family in all {
            family.clear();
        }
        for (credential, kind, standing) in budgets {
            let labels = BudgetLabels { credential: credential.as_ref().to_owned(), kind };
            let set = |family: &Family<BudgetLabels, Gauge>, n: u32| {
                family.get_or_create(&labels).set(n.into());
            };
            set(&self.limit, standing.limit);
            set(&self.used, standing.used);
            set(&self.in_flight, standing.in_flight);
            set(&self.waiting, u32::try_from(standing.waiting).unwrap_or(u32::MAX));
            set(&self.foreign, standing.foreign);
            set(&self.closed, u32::from(standing.held_by.is_some()));
            if let Some(remaining) = standing.remaining {
                set(&self.remaining, remaining);
            }
        }
    }
}

impl LimitStoreMetrics {
    fn register(&self, r: &mut Registry) {
        r.register("sharing_degraded", "1 while the store of shared limits is not asked", self.degraded.clone());
        r.register("sharing_gateways", "Gateways on the store, as last heard", self.gateways.clone());
        r.register("sharing_calls", "Calls of the store", self.calls.clone());
        r.register("sharing_failures", "Calls that failed or took too long", self.failures.clone());
        r.register("sharing_losses", "How often the store was given up", self.losses.clone());
    }

    /// Updates the metrics.
    fn update(&self, store: &StoreStats) {
        self.degraded.set(i64::from(store.state != BreakerState::Closed));
        self.gateways.set(store.gateways.into());
        self.calls.inner().store(store.calls, Ordering::Relaxed);
        self.failures.inner().store(store.failures, Ordering::Relaxed);
        self.losses.inner().store(store.losses, Ordering::Relaxed);
    }
}

/// Starts the log on standard error. The configuration has checked `level`.
pub fn start_log(level: &str, json: bool) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started =
        if json { builder.json().flatten_event(true).try_init() } else { builder.with_ansi(false).try_init() };
    drop(started);
}
