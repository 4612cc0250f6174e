//! Record of a request: one line of the access log and one count in the metrics, written at the end of its response.
//!
//! Last stage. A [`Record`] starts with the request and travels with the body of the response. Dropping it writes the line:
//! at the end of the body, when the client leaves, or after a panic.

#![expect(
    clippy::disallowed_methods,
    reason = "this module reads the time of a request once, at its begin and its end"
)]

mod report;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use http::{HeaderValue, Response, StatusCode, request};

use crate::budget::Slot;
use crate::catalog::{EndpointId, RouteMatch};
use crate::entitle::Grant;
use crate::gateway::{CapacityPermit, Gateway, GatewayHandle, Snapshot};
use crate::headers::{REQUEST_ID, is_safe_token};
use crate::identify::{Caller, ConsumerId, Identity};
use crate::limit::PendingCharge;
use crate::ratelimit::{RateLimitStatus, ThrottleReason, Throttled};
use crate::refusal::{Refusal, Rule};
use crate::request_id;
use crate::time::MonoTime;

/// Status of a request whose client left before the end of the response, as in nginx.
const STATUS_CLIENT_LEFT: u16 = 499;

/// Status of a request that had no complete response when the process stopped.
const STATUS_SHUTDOWN: u16 = 503;

/// Stands for a missing code, method or template.
const NONE: &str = "-";

/// Consumer that a request counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum ConsumerLabel {
    Consumer(ConsumerId),
    Fixed(&'static str),
}

/// Collected facts about one request.
#[derive(Debug)]
pub struct Record {
    gateway: GatewayHandle,
    snapshot: Arc<Snapshot>,
    in_flight: Option<CapacityPermit>,
    request_id: HeaderValue,
    client: IpAddr,
    /// Method as in the log.
    method: &'static str,
    at: SystemTime,
    started: MonoTime,
    sent: Option<MonoTime>,
    /// Whether Cal.com may have received and carried out the request.
    may_be_done: AtomicBool,
    responded: Option<MonoTime>,
    consumer_label: ConsumerLabel,
    endpoint: Option<EndpointId>,
    standing: Option<RateLimitStatus>,
    /// Facts that few requests have. They are boxed, so that a record has a size that the allocator serves fast.
    extras: Option<Box<Extras>>,
    code: &'static str,
    status: Option<u16>,
    bytes_out: u64,
    complete: bool,
}

/// Facts that few requests have.
#[derive(Debug, Default)]
struct Extras {
    observed: Option<Rule>,
    held: Option<Throttled>,
    detail: Option<String>,
    /// Request id that Cal.com returned, if it differs from the id of the gateway.
    upstream_request_id: Option<Box<str>>,
}

impl Record {
    /// Opens the record of a request whose head was read. It is boxed because many functions pass it on.
    pub fn open(gateway: GatewayHandle, snapshot: Arc<Snapshot>, head: &request::Parts, client: IpAddr) -> Box<Self> {
        let at = SystemTime::now();
        let in_flight = gateway.capacity.try_admit(snapshot.bounds.in_flight);
        let mut record = Self::new(
            gateway,
            snapshot,
            request_id::of(&head.headers, at),
            report::method_name(&head.method),
            client,
            at,
        );
        record.in_flight = in_flight;
        record
    }

    /// Opens a record for a connection without a complete request.
    pub fn without_request(gateway: &Arc<Gateway>, client: IpAddr) -> Box<Self> {
        let at = SystemTime::now();
        Self::new(GatewayHandle::new(gateway), gateway.snapshot(), request_id::new(at), NONE, client, at)
    }

    fn new(
        gateway: GatewayHandle,
        snapshot: Arc<Snapshot>,
        request_id: HeaderValue,
        method: &'static str,
        client: IpAddr,
        at: SystemTime,
    ) -> Box<Self> {
        Box::new(Self {
            in_flight: None,
            request_id,
            started: gateway.clock.now(),
            gateway,
            snapshot,
            client,
            method,
            at,
            sent: None,
            may_be_done: AtomicBool::new(false),
            responded: None,
            consumer_label: ConsumerLabel::Fixed("(unknown)"),
            endpoint: None,
            standing: None,
            extras: None,
            code: NONE,
            status: None,
            bytes_out: 0,
            complete: false,
        })
    }

    /// Returns the snapshot that the request started with.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Returns when the head was read, by the monotonic clock and by the time of day.
    pub fn arrival(&self) -> (MonoTime, SystemTime) {
        (self.started, self.at)
    }

    /// Returns the client's address.
    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// Returns the request id.
    pub fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    /// Returns whether the request is within the limit of requests in flight.
    pub fn has_capacity(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Releases the request's place among those in flight. The remaining work only writes the response to the client.
    pub fn release_capacity(&mut self) {
        self.in_flight = None;
    }

    /// Returns the state of the caller's bucket, once it is known.
    pub fn standing(&self) -> Option<RateLimitStatus> {
        self.standing
    }

    /// Returns the path template, once it is known. It never contains text of the client.
    pub fn template(&self) -> &str {
        let endpoint = self.endpoint.and_then(|id| self.snapshot.catalog().endpoints().get(id.index()));
        endpoint.map_or("", |endpoint| endpoint.template.as_str())
    }

    /// Notes the caller and the state of its bucket before the charge.
    pub fn note_caller(&mut self, caller: &Caller<'_>, standing: Option<RateLimitStatus>) {
        self.standing = standing;
        self.consumer_label = match caller.identity() {
            Identity::Consumer(consumer) => ConsumerLabel::Consumer(consumer.id),
            Identity::Public(_) => ConsumerLabel::Fixed("(public)"),
            Identity::Passthrough(_) => ConsumerLabel::Fixed("(passthrough)"),
        };
    }

    /// Notes the operation.
    pub fn note_route(&mut self, matched: &RouteMatch<'_>) {
        self.endpoint = matched.endpoint().map(|endpoint| endpoint.id);
    }

    /// Notes the rule that would deny the request, in observe mode.
    pub fn note_grant(&mut self, grant: &Grant<'_>) {
        if let Some(rule) = grant.would_deny() {
            self.extras().observed = Some(rule.clone());
        }
    }

    /// Notes the state of the bucket after the charge.
    pub fn note_standing(&mut self, standing: Option<RateLimitStatus>) {
        self.standing = standing;
    }

    /// Notes the state of the bucket after the limit store confirmed or denied a pending charge.
    pub fn note_pending_charge(&mut self, pending: Option<&PendingCharge<'_>>) {
        if let Some(pending) = pending {
            self.standing = Some(pending.status());
        }
    }

    /// Notes the wait for the budget, if there was one.
    pub fn note_slot(&mut self, slot: &Slot) {
        if let Some(held) = slot.throttled() {
            self.extras().held = Some(held);
        }
    }

    /// Notes that the request is about to be sent, and returns the time.
    pub fn note_sent(&mut self) -> Instant {
        let now = Instant::now();
        self.sent = Some(self.gateway.clock.at(now));
        now
    }

    /// Returns the flag that says whether Cal.com may have received and carried out the request.
    pub fn may_be_done(&self) -> &AtomicBool {
        &self.may_be_done
    }

    /// Returns the refusal of a request that has no response when the process stops.
    pub fn shutdown_refusal(&self) -> Refusal {
        Refusal::Stopping { sent: self.may_be_done.load(Ordering::Relaxed) }
    }

    /// Notes the status, the request id and the arrival of a response of Cal.com. It drops an id that repeats `secret`.
    pub fn note_response<B>(&mut self, answer: &Response<B>, at: Instant, secret: Option<&[u8]>) {
        let status = answer.status();
        let given = answer.headers().get(REQUEST_ID).filter(|id| **id != self.request_id);
        if let Some(id) = given.and_then(|id| id.to_str().ok()).filter(|id| is_safe_token(id)) {
            let shows = |secret: &[u8]| id.as_bytes().windows(secret.len().max(1)).any(|part| part == secret);
            if secret.is_none_or(|secret| !shows(secret)) {
                self.extras().upstream_request_id = Some(id.into());
            }
        }
        self.responded = Some(self.gateway.clock.at(at));
        self.status = Some(status.as_u16());
        if status == http::StatusCode::TOO_MANY_REQUESTS {
            self.gateway.metrics.upstream_429.inc();
        }
    }

    /// Notes the hint that the gateway adds to the response of Cal.com.
    pub fn note_hint(&mut self, hint: &HeaderValue) {
        self.extras().detail = hint.to_str().ok().map(str::to_owned);
    }

    /// Notes a response of the gateway that is not a refusal.
    pub fn note_local_response(&mut self, status: http::StatusCode) {
        self.status = Some(status.as_u16());
        self.note_decided();
    }

    /// Notes a refusal.
    pub fn note_refusal(&mut self, refusal: &Refusal) {
        self.code = refusal.code();
        if let Some(detail) = refusal.detail() {
            self.extras().detail = Some(detail);
        }
        let status = refusal.status();
        self.status = Some(status.as_u16());
        // The fields of a bucket that did not refuse the request would contradict `Retry-After`.
        let is_bucket =
            matches!(refusal, Refusal::RateLimited { .. }) && self.standing.is_some_and(|s| s.remaining == 0);
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) && !is_bucket {
            self.standing = None;
        }
        self.note_decided();
        if let Refusal::UpstreamBudget(held) = refusal {
            let waited = self.sent.unwrap_or_else(|| self.gateway.clock.now()).since(self.started);
            self.extras().held = Some(Throttled { wait: waited, ..*held });
            if self.sent.is_some() && matches!(held.by, ThrottleReason::Refused | ThrottleReason::Edge) {
                self.gateway.metrics.upstream_429.inc();
            }
        }
    }

    /// Notes the end of the work of the gateway, if nothing was sent: the time until the client has read the response does
    /// not count.
    fn note_decided(&mut self) {
        if self.sent.is_none() {
            self.responded = Some(self.gateway.clock.now());
        }
    }

    /// Counts bytes of the response body.
    pub fn note_bytes(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    /// Notes that the response of Cal.com broke off.
    pub fn note_stream_error(&mut self, fault: &dyn std::fmt::Display) {
        self.extras().detail = Some(fault.to_string());
        self.complete = true;
    }

    /// Notes the end of the response.
    pub fn note_complete(&mut self) {
        self.complete = true;
    }

    /// Notes that the process stopped first.
    fn note_shutdown(&mut self) {
        self.status = Some(STATUS_SHUTDOWN);
        self.extras().detail = Some("given up: calgate ended before the answer did".to_owned());
        self.complete = true;
    }

    fn extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    fn final_status(&self) -> u16 {
        match self.status {
            Some(status) if self.complete => status,
            _ if std::thread::panicking() => 500,
            _ => STATUS_CLIENT_LEFT,
        }
    }

    fn consumer(&self) -> &str {
        match self.consumer_label {
            ConsumerLabel::Consumer(id) => {
                self.snapshot.consumers.list().get(id.index()).map_or(NONE, |consumer| &consumer.name)
            }
            ConsumerLabel::Fixed(name) => name,
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.complete && self.gateway.lifecycle.is_stopped() {
            self.note_shutdown();
        }
        let status = self.final_status();
        self.update_metrics(status);
        if self.snapshot.access_log {
            self.write_line(status);
        }
    }
}
