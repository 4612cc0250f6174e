//! What happened: one access log line and one count per request, written once, at the end of its answer.
//!
//! Last stage. A [`Record`] is opened with the request and travels with the answer's body; when that ends, or the caller
//! leaves, or anything panics, dropping it writes the line.

mod access_log;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderValue, Method, request};
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;

pub use access_log::AccessLog;

use crate::app::{App, Gateway, Place};
use crate::budget::{Held, Hold, Slot};
use crate::catalog::{EndpointId, Matched};
use crate::entitle::{Grant, Rule};
use crate::identify::{Caller, ConsumerId, Who};
use crate::limit::{Standing, Tick};
use crate::refusal::Refusal;
use crate::request_id;
use crate::respond::iso8601;
use crate::telemetry::{HeldLabels, ObservedLabels, RequestLabels};

/// The status of a request whose caller left before the end of the answer (nginx's convention).
const CALLER_LEFT: u16 = 499;

/// Stands for a code, a method or a template where there is none.
const NONE: &str = "-";

/// Who a request is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Counted {
    Consumer(ConsumerId),
    Named(&'static str),
}

/// What is known of one request so far.
#[derive(Debug)]
pub struct Record {
    gateway: Arc<Gateway>,
    app: Arc<App>,
    in_flight: Option<Place>,
    request_id: HeaderValue,
    client: IpAddr,
    /// `None` where no head was read.
    method: Option<Method>,
    at: SystemTime,
    started: Tick,
    sent: Option<Tick>,
    answered: Option<Tick>,
    counted: Counted,
    endpoint: Option<EndpointId>,
    observed: Option<Rule>,
    standing: Option<Standing>,
    held: Option<Held>,
    code: &'static str,
    detail: Option<String>,
    status: Option<u16>,
    bytes_out: u64,
    complete: bool,
}

impl Record {
    /// Opens the record of a request that has just been read. It is boxed, for it goes through many hands.
    pub fn open(gateway: &Arc<Gateway>, app: Arc<App>, head: &request::Parts, client: IpAddr) -> Box<Self> {
        let at = SystemTime::now();
        let in_flight = gateway.admit(app.limits.in_flight);
        let mut record =
            Self::new(gateway, app, request_id::of(&head.headers, at), Some(head.method.clone()), client, at);
        record.in_flight = in_flight;
        record
    }

    /// Opens a record where there is no whole request to speak of.
    pub fn without_request(gateway: &Arc<Gateway>, client: IpAddr) -> Box<Self> {
        let at = SystemTime::now();
        Self::new(gateway, gateway.app(), request_id::new(at), None, client, at)
    }

    fn new(
        gateway: &Arc<Gateway>,
        app: Arc<App>,
        request_id: HeaderValue,
        method: Option<Method>,
        client: IpAddr,
        at: SystemTime,
    ) -> Box<Self> {
        Box::new(Self {
            in_flight: None,
            request_id,
            gateway: gateway.clone(),
            app,
            client,
            method,
            at,
            started: gateway.clock.now(),
            sent: None,
            answered: None,
            counted: Counted::Named("(unknown)"),
            endpoint: None,
            observed: None,
            standing: None,
            held: None,
            code: NONE,
            detail: None,
            status: None,
            bytes_out: 0,
            complete: false,
        })
    }

    /// The configuration the request is served by.
    pub fn app(&self) -> Arc<App> {
        self.app.clone()
    }

    /// When the request was read: by the buckets' clock and by the calendar.
    pub fn arrival(&self) -> (Tick, SystemTime) {
        (self.started, self.at)
    }

    /// Where it comes from.
    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// Its id.
    pub fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    /// Whether it found room among those in flight.
    pub fn is_admitted(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Gives its place to others: what is left to be done costs Cal.com nothing, however long the caller takes for it.
    pub fn give_up_place(&mut self) {
        self.in_flight = None;
    }

    /// How the caller's bucket stands, once known.
    pub fn standing(&self) -> Option<Standing> {
        self.standing
    }

    /// The path template, once known; never what the caller sent.
    pub fn template(&self) -> &str {
        let endpoint = self.endpoint.and_then(|id| self.app.catalog().endpoints().get(id.index()));
        endpoint.map_or("", |endpoint| endpoint.template.as_str())
    }

    /// Notes who asks and how the bucket stands before anything is taken.
    pub fn note_caller(&mut self, caller: &Caller<'_>, standing: Option<Standing>) {
        self.standing = standing;
        self.counted = match caller.who() {
            Who::Consumer(consumer) => Counted::Consumer(consumer.id),
            Who::Public(_) => Counted::Named("(public)"),
            Who::Passthrough(_) => Counted::Named("(passthrough)"),
        };
    }

    /// Notes what for.
    pub fn note_matched(&mut self, matched: &Matched<'_>) {
        self.endpoint = matched.endpoint().map(|endpoint| endpoint.id);
    }

    /// Notes the rule that would have refused, in observe mode.
    pub fn note_grant(&mut self, grant: &Grant<'_>) {
        self.observed = grant.observed().cloned();
    }

    /// Notes how the bucket stands after the take.
    pub fn note_standing(&mut self, standing: Option<Standing>) {
        self.standing = standing;
    }

    /// Notes what the request waited for to be sent, if it did.
    pub fn note_slot(&mut self, slot: &Slot) {
        self.held = slot.held();
    }

    /// Notes that the request is about to be sent.
    pub fn note_sent(&mut self) {
        self.sent = Some(self.gateway.clock.now());
    }

    /// Notes the status of Cal.com's answer.
    pub fn note_answer(&mut self, status: http::StatusCode) {
        self.answered = Some(self.gateway.clock.now());
        self.status = Some(status.as_u16());
        if status == http::StatusCode::TOO_MANY_REQUESTS {
            self.gateway.metrics.upstream_429.inc();
        }
    }

    /// Notes an answer that the gateway gives itself without refusing.
    pub fn note_answered_here(&mut self, status: http::StatusCode) {
        self.status = Some(status.as_u16());
        self.note_decided();
    }

    /// Notes why the request is refused.
    pub fn note_refusal(&mut self, refusal: &Refusal) {
        self.code = refusal.code();
        self.detail = refusal.detail();
        self.status = Some(refusal.status().as_u16());
        self.note_decided();
        if let Refusal::UpstreamBudget(held) = refusal {
            let waited = self.sent.unwrap_or_else(|| self.gateway.clock.now()).since(self.started);
            self.held = Some(Held { wait: waited, ..*held });
            if self.sent.is_some() && matches!(held.by, Hold::Refused | Hold::Edge) {
                self.gateway.metrics.upstream_429.inc();
            }
        }
    }

    /// Notes that the gateway has done its part, where nothing was sent: the time that the caller takes is not its own.
    fn note_decided(&mut self) {
        if self.sent.is_none() {
            self.answered = Some(self.gateway.clock.now());
        }
    }

    /// Notes that so much of the answer's body went out.
    pub fn note_bytes(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    /// Notes that the answer broke off on Cal.com's side.
    pub fn note_broken(&mut self, fault: &dyn std::fmt::Display) {
        self.detail = Some(fault.to_string());
        self.complete = true;
    }

    /// Notes that the answer is at its end.
    pub fn note_complete(&mut self) {
        self.complete = true;
    }

    fn final_status(&self) -> u16 {
        match self.status {
            Some(status) if self.complete => status,
            _ if std::thread::panicking() => 500,
            _ => CALLER_LEFT,
        }
    }

    fn consumer(&self) -> &str {
        match self.counted {
            Counted::Consumer(id) => self.app.consumers.list().get(id.index()).map_or(NONE, |consumer| &consumer.name),
            Counted::Named(name) => name,
        }
    }

    fn count(&self, status: u16) {
        let metrics = &self.gateway.metrics;
        let key = (self.app.generation, self.counted, self.endpoint, self.code, status);
        SERIES.with_borrow_mut(|series| {
            if series.0 != self.app.generation {
                *series = (self.app.generation, Series::default());
            }
            let counter = series
                .1
                .entry((key.1, key.2, key.3, key.4))
                .or_insert_with(|| metrics.requests.get_or_create_owned(&self.labels(status)));
            counter.inc();
        });
        let decided = self.sent.or(self.answered).unwrap_or_else(|| self.gateway.clock.now());
        metrics.gateway_seconds.observe(seconds(self.started, decided));
        if let (Some(sent), Some(answered)) = (self.sent, self.answered) {
            metrics.upstream_seconds.observe(seconds(sent, answered));
        }
        if let Some(held) = self.held {
            let labels =
                HeldLabels { credential: self.credential_name().unwrap_or(NONE).to_owned(), by: held.by.name() };
            metrics.held.get_or_create(&labels).inc();
            metrics.budget_seconds.observe(held.wait.as_secs_f64());
        }
        if self.observed.is_some() {
            let RequestLabels { consumer, method, endpoint, .. } = self.labels(status);
            metrics.observed.get_or_create(&ObservedLabels { consumer, method, endpoint }).inc();
        }
    }

    fn labels(&self, status: u16) -> RequestLabels {
        let endpoint = self.endpoint.and_then(|id| self.app.catalog().endpoints().get(id.index()));
        RequestLabels {
            consumer: self.consumer().to_owned(),
            method: endpoint.map_or(NONE, |e| e.method.as_str()).to_owned(),
            endpoint: endpoint.map_or(NONE, |e| e.template.as_str()).to_owned(),
            code: self.code,
            status,
        }
    }

    fn write_line(&self, status: u16) {
        let now = self.gateway.clock.now();
        let tier = match self.counted {
            Counted::Consumer(id) => self.app.buckets.tier(id).map(|tier| &*tier.name),
            Counted::Named(_) => None,
        };
        let line = Line {
            ts: iso8601(self.at),
            request_id: self.request_id.to_str().unwrap_or_default(),
            client: self.client,
            consumer: self.consumer(),
            credential: self.credential_name(),
            tier,
            method: self.method_name(),
            endpoint: self.template(),
            status,
            code: self.code,
            detail: self.detail.as_deref(),
            observed: self.observed.as_ref().map(ToString::to_string),
            bytes_out: self.bytes_out,
            held_by: self.held.map(|held| held.by.name()),
            held_ms: self.held.map(|held| milliseconds(Tick(0), Tick(0).after(held.wait))),
            gateway_ms: milliseconds(self.started, self.sent.or(self.answered).unwrap_or(now)),
            upstream_ms: self.sent.map(|sent| milliseconds(sent, self.answered.unwrap_or(now))),
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
        match self.counted {
            Counted::Consumer(id) => self.app.credentials.of(id).map(|credential| &*credential.name),
            Counted::Named(_) => None,
        }
    }

    /// The method, if it is one that callers use; others are the caller's own words.
    fn method_name(&self) -> &str {
        let Some(method) = &self.method else { return NONE };
        let known =
            [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];
        if known.contains(method) { method.as_str() } else { "(other)" }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let status = self.final_status();
        self.count(status);
        if self.app.access_log {
            self.write_line(status);
        }
    }
}

type SeriesKey = (Counted, Option<EndpointId>, &'static str, u16);
/// Nothing a caller sends is in a key, so the hasher may be a fast one.
type Series = HashMap<SeriesKey, Counter, foldhash::fast::RandomState>;

thread_local! {
    /// The counters this worker has used, so that counting needs neither labels nor a lock.
    static SERIES: RefCell<(u64, Series)> = RefCell::new((0, Series::default()));
}

/// One line of the access log.
#[derive(Serialize)]
struct Line<'a> {
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
fn seconds(from: Tick, to: Tick) -> f64 {
    to.0.saturating_sub(from.0) as f64 / 1e9
}

/// To a microsecond.
fn milliseconds(from: Tick, to: Tick) -> f64 {
    (seconds(from, to) * 1e6).round() / 1e3
}
