//! Metrics, and the gateway's own log.
//!
//! Labels are names and templates from the configuration and the catalog, never anything a caller sent, so the number of
//! series is bounded by the configuration.

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

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

/// A renewable credential, and the state it is in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CredentialLabels {
    /// Its name in the config, with the managed user's id if it is one's.
    pub credential: String,
    /// `fresh`, `due`, `degraded`, `expired`, `unavailable`, `needs-login` or `loading`.
    pub state: &'static str,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests, counted at the end of their answer.
    pub requests: Family<RequestLabels, Counter>,
    /// Time that the gateway added: from a request's head to its being sent, or to its refusal.
    pub gateway_seconds: Histogram,
    /// Time that Cal.com took: from sending to the head of its answer.
    pub upstream_seconds: Histogram,
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
    /// Lines of the access log that were lost because standard output did not keep up.
    pub access_log_lost: Counter<u64, AtomicU64>,
}

/// Upper bounds in seconds, for times from 10 µs to a minute.
const SECONDS: [f64; 16] =
    [1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 1e-3, 5e-3, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("calgate"),
            requests: Family::default(),
            gateway_seconds: Histogram::new(SECONDS),
            upstream_seconds: Histogram::new(SECONDS),
            observed: Family::default(),
            reloads: Family::default(),
            credentials: Family::default(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            upstream_429: Counter::default(),
            access_log_lost: Counter::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    /// Tells the state of every renewable credential.
    pub fn set_credentials(&self, states: Vec<(String, &'static str)>) {
        self.credentials.clear();
        for (credential, state) in states {
            if !credential.contains('/') || !matches!(state, "fresh" | "due") {
                self.credentials.get_or_create(&CredentialLabels { credential, state }).set(1);
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
        r.register("upstream_429", "Answers of 429 from Cal.com", self.upstream_429.clone());
        r.register("access_log_lost_lines", "Access log lines lost to a slow reader", self.access_log_lost.clone());
    }

    /// All metrics in the Prometheus text format.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        if prometheus_client::encoding::text::encode(&mut out, &self.registry).is_err() {
            let _ = writeln!(out, "# encoding failed");
        }
        out
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
