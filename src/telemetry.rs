//! Metrics, and the gateway's own log.
//!
//! Labels are names and templates from the configuration and the catalog, never anything a caller sent, so the number of
//! series is bounded by the configuration.

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

/// What a request is counted by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The consumer's name, or what stands for one.
    pub consumer: String,
    /// The endpoint's method, or `-`.
    pub method: String,
    /// The endpoint's path template, or `-`.
    pub endpoint: String,
    /// The gateway's code, or `-` for an answer of Cal.com's.
    pub code: &'static str,
    /// The HTTP status.
    pub status: u16,
}

/// What a reload came to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReloadLabels {
    /// `applied` or `rejected`.
    pub result: &'static str,
}

/// Who would have been refused what, in observe mode.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ObservedLabels {
    /// The consumer's name.
    pub consumer: String,
    /// The endpoint's method.
    pub method: String,
    /// The endpoint's path template.
    pub endpoint: String,
}

/// What held a request back, and on which credential.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HeldLabels {
    /// The credential's name, or `-` for callers without a configured one.
    pub credential: String,
    /// The limit.
    pub by: &'static str,
}

/// One budget.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BudgetLabels {
    /// The credential's name.
    pub credential: String,
    /// What of it Cal.com counts by: `bearer`, `client`, or `none`.
    pub kind: &'static str,
}

/// How budgets stand, set when metrics are read.
#[derive(Debug, Default)]
pub struct BudgetGauges {
    /// N, by the configuration and by Cal.com's answers.
    pub limit: Family<BudgetLabels, Gauge>,
    /// Requests in flight and within the last window.
    pub used: Family<BudgetLabels, Gauge>,
    /// Requests in flight.
    pub in_flight: Family<BudgetLabels, Gauge>,
    /// Requests that wait.
    pub waiting: Family<BudgetLabels, Gauge>,
    /// What is left of Cal.com's open window, where its answers tell.
    pub remaining: Family<BudgetLabels, Gauge>,
    /// Requests of others on the same credential, in one window.
    pub foreign: Family<BudgetLabels, Gauge>,
    /// 1 while nothing goes out.
    pub closed: Family<BudgetLabels, Gauge>,
}

/// How the store of shared limits stands, set when metrics are read.
#[derive(Debug, Default)]
pub struct LimitStoreMetrics {
    /// 1 while it is not asked.
    pub degraded: Gauge,
    /// Gateways on it, as last heard.
    pub gateways: Gauge,
    /// Calls made.
    pub calls: Counter,
    /// Those that failed or took too long.
    pub failures: Counter,
    /// How often it was given up.
    pub losses: Counter,
}

/// A renewable credential, and the state it is in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CredentialLabels {
    /// Its name in the config, with the managed user's id if it is one's.
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
    /// Requests, counted at the end of their answer.
    pub requests: Family<RequestLabels, Counter>,
    /// Time that the gateway added: from a request's head to its being sent, or to its refusal.
    pub gateway_seconds: ShardedHistogram,
    /// Time that Cal.com took: from sending to the head of its answer.
    pub upstream_seconds: ShardedHistogram,
    /// Requests that entitlement would have refused, were it not observing.
    pub observed: Family<ObservedLabels, Counter>,
    /// Reloads of the configuration.
    pub reloads: Family<ReloadLabels, Counter>,
    /// Renewable credentials: 1 for the state that each is in. Managed users are named only while something is wrong with
    /// them, as there may be many.
    pub credentials: Family<CredentialLabels, Gauge>,
    /// Requests in flight.
    pub in_flight: Gauge,
    /// Open connections of callers.
    pub connections: Gauge,
    /// Connections closed at once because as many were open as may be.
    pub connections_refused: Counter,
    /// Answers of 429 from Cal.com: there should be none.
    pub upstream_429: Counter,
    /// Requests that waited for their credential's budget, or were refused by it.
    pub held: Family<HeldLabels, Counter>,
    /// How long they waited.
    pub budget_seconds: ShardedHistogram,
    /// How budgets stand.
    pub budgets: BudgetGauges,
    /// How the store of shared limits stands.
    pub limit_store: LimitStoreMetrics,
    /// Lines of the access log that were lost because standard output did not keep up.
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

    /// Returns all metrics in the Prometheus text format, with `gauges` as the values of this moment.
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

    /// Tells how the budgets of credentials stand now. One that is gone is told no more.
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

    /// Tells how the store stands now.
    fn update(&self, store: &StoreStats) {
        self.degraded.set(i64::from(store.state != BreakerState::Closed));
        self.gateways.set(store.gateways.into());
        self.calls.inner().store(store.calls, Ordering::Relaxed);
        self.failures.inner().store(store.failures, Ordering::Relaxed);
        self.losses.inner().store(store.losses, Ordering::Relaxed);
    }
}

/// Starts the gateway's own log on standard error. `level` has been checked by the configuration.
pub fn start_log(level: &str, json: bool) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started =
        if json { builder.json().flatten_event(true).try_init() } else { builder.with_ansi(false).try_init() };
    drop(started);
}
