//! Report at the end of a record: the metrics, and the line of the access log.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;

use http::Method;
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;

use crate::catalog::EndpointId;
use crate::record::{ConsumerLabel, NONE, Record};
use crate::telemetry::{ObservedLabels, RequestLabels, ThrottledLabels};
use crate::time::{MonoTime, iso8601};

impl Record {
    /// Updates the metrics.
    pub(super) fn update_metrics(&self, status: u16) {
        let metrics = &self.gateway.metrics;
        let key = (self.snapshot.generation, self.consumer_label, self.endpoint, self.code, status);
        SERIES.with_borrow_mut(|series| {
            if series.0 != self.snapshot.generation {
                *series = (self.snapshot.generation, Series::default());
            }
            let counter = series
                .1
                .entry((key.1, key.2, key.3, key.4))
                .or_insert_with(|| metrics.requests.get_or_create_owned(&self.labels(status)));
            counter.inc();
        });
        let decided = self.sent.or(self.responded).unwrap_or_else(|| self.gateway.clock.now());
        metrics.gateway_seconds.observe(decided.since(self.started));
        if let (Some(sent), Some(responded)) = (self.sent, self.responded) {
            metrics.upstream_seconds.observe(responded.since(sent));
        }
        let Some(extras) = &self.extras else { return };
        if let Some(held) = extras.held {
            let labels =
                ThrottledLabels { credential: self.credential_name().unwrap_or(NONE).to_owned(), by: held.by.name() };
            metrics.held.get_or_create(&labels).inc();
            metrics.budget_seconds.observe(held.wait);
        }
        if extras.observed.is_some() {
            let RequestLabels { consumer, method, endpoint, .. } = self.labels(status);
            metrics.observed.get_or_create(&ObservedLabels { consumer, method, endpoint }).inc();
        }
    }

    fn labels(&self, status: u16) -> RequestLabels {
        let endpoint = self.endpoint.and_then(|id| self.snapshot.catalog().endpoints().get(id.index()));
        RequestLabels {
            consumer: self.consumer().to_owned(),
            method: endpoint.map_or(NONE, |e| e.method.as_str()).to_owned(),
            endpoint: endpoint.map_or(NONE, |e| e.template.as_str()).to_owned(),
            code: self.code,
            status,
        }
    }

    /// Writes the line of the access log.
    pub(super) fn write_line(&self, status: u16) {
        let now = self.gateway.clock.now();
        let tier = match self.consumer_label {
            ConsumerLabel::Consumer(id) => self.snapshot.rate_limits.tier(id).map(|tier| &*tier.name),
            ConsumerLabel::Fixed(_) => None,
        };
        let extras = self.extras.as_deref();
        let held = extras.and_then(|extras| extras.held);
        let line = LogLine {
            ts: iso8601(self.at),
            request_id: self.request_id.to_str().unwrap_or_default(),
            client: self.client,
            consumer: self.consumer(),
            credential: self.credential_name(),
            tier,
            method: self.method,
            endpoint: self.template(),
            status,
            code: self.code,
            detail: extras.and_then(|extras| extras.detail.as_deref()),
            upstream_request_id: extras.and_then(|extras| extras.upstream_request_id.as_deref()),
            observed: extras.and_then(|extras| extras.observed.as_ref()).map(ToString::to_string),
            bytes_out: self.bytes_out,
            held_by: held.map(|held| held.by.name()),
            held_ms: held.map(|held| milliseconds(MonoTime(0), MonoTime(0).after(held.wait))),
            gateway_ms: milliseconds(self.started, self.sent.or(self.responded).unwrap_or(now)),
            upstream_ms: self.sent.map(|sent| milliseconds(sent, self.responded.unwrap_or(now))),
            total_ms: milliseconds(self.started, now),
        };
        let Some(log) = &self.gateway.access_log else { return };
        let added = log.add(|out| {
            if serde_json::to_writer(&mut *out, &line).is_ok() {
                out.push(b'\n');
            }
        });
        if !added {
            self.gateway.metrics.access_log_lost.inc();
        }
    }

    fn credential_name(&self) -> Option<&str> {
        match self.consumer_label {
            ConsumerLabel::Consumer(id) => self.snapshot.credentials.of(id).map(|credential| &*credential.name),
            ConsumerLabel::Fixed(_) => None,
        }
    }
}

/// Returns the name of a usual method. Any other is text of the client, which the log does not repeat.
pub(super) fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "(other)",
    }
}

type SeriesKey = (ConsumerLabel, Option<EndpointId>, &'static str, u16);
/// Counters by their labels. No client chooses a key, so the hasher can be a fast one.
type Series = HashMap<SeriesKey, Counter, foldhash::fast::RandomState>;

thread_local! {
    /// Counters that this worker has used. Counting a request takes neither labels nor a lock.
    static SERIES: RefCell<(u64, Series)> = RefCell::new((0, Series::default()));
}

/// Line of the access log.
#[derive(Serialize)]
struct LogLine<'a> {
    ts: String,
    request_id: &'a str,
    client: IpAddr,
    consumer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'a str>,
    method: &'a str,
    endpoint: &'a str,
    status: u16,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed: Option<String>,
    bytes_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    held_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held_ms: Option<f64>,
    gateway_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_ms: Option<f64>,
    total_ms: f64,
}

#[expect(clippy::cast_precision_loss, reason = "times of requests are far below 2^52 ns")]
fn seconds(from: MonoTime, to: MonoTime) -> f64 {
    to.0.saturating_sub(from.0) as f64 / 1e9
}

/// Returns the time between two moments in milliseconds, rounded to microseconds.
fn milliseconds(from: MonoTime, to: MonoTime) -> f64 {
    (seconds(from, to) * 1e6).round() / 1e3
}
