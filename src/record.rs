//! The record of a request: one line of the access log and one count in the metrics, written at the end of its response.
//!
//! Last stage. A [`Record`] is opened with the request and travels with the answer's body; when that ends, or the caller
//! leaves, or anything panics, dropping it writes the line.

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

/// The status of a request whose caller left before the end of the answer (nginx's convention).
const CALLER_LEFT: u16 = 499;

/// The status of a request that was given up when the program ended.
const GIVEN_UP: u16 = 503;

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
    gateway: GatewayHandle,
    snapshot: Arc<Snapshot>,
    in_flight: Option<CapacityPermit>,
    request_id: HeaderValue,
    client: IpAddr,
    /// As it is in the log.
    method: &'static str,
    at: SystemTime,
    started: MonoTime,
    sent: Option<MonoTime>,
    /// Whether any of the request may have been written to Cal.com, and have been carried out.
    may_be_done: AtomicBool,
    answered: Option<MonoTime>,
    counted: Counted,
    endpoint: Option<EndpointId>,
    standing: Option<RateLimitStatus>,
    /// Boxed, for it is rare: without it, a record has a size that the allocator is quick with.
    rare: Option<Box<Rare>>,
    code: &'static str,
    status: Option<u16>,
    bytes_out: u64,
    complete: bool,
}

/// What is known of few requests.
#[derive(Debug, Default)]
struct Rare {
    observed: Option<Rule>,
    held: Option<Throttled>,
    detail: Option<String>,
    /// The id that Cal.com gave the request, where it is another than ours.
    upstream_request_id: Option<Box<str>>,
}

impl Record {
    /// Opens the record of a request that has just been read. It is boxed, for it goes through many hands.
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

    /// Opens a record where there is no whole request to speak of.
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
            answered: None,
            counted: Counted::Named("(unknown)"),
            endpoint: None,
            standing: None,
            rare: None,
            code: NONE,
            status: None,
            bytes_out: 0,
            complete: false,
        })
    }

    /// The configuration the request is served by.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// When the request was read: by the buckets' clock and by the calendar.
    pub fn arrival(&self) -> (MonoTime, SystemTime) {
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
    pub fn standing(&self) -> Option<RateLimitStatus> {
        self.standing
    }

    /// The path template, once known; never what the caller sent.
    pub fn template(&self) -> &str {
        let endpoint = self.endpoint.and_then(|id| self.snapshot.catalog().endpoints().get(id.index()));
        endpoint.map_or("", |endpoint| endpoint.template.as_str())
    }

    /// Notes who asks and how the bucket stands before anything is taken.
    pub fn note_caller(&mut self, caller: &Caller<'_>, standing: Option<RateLimitStatus>) {
        self.standing = standing;
        self.counted = match caller.identity() {
            Identity::Consumer(consumer) => Counted::Consumer(consumer.id),
            Identity::Public(_) => Counted::Named("(public)"),
            Identity::Passthrough(_) => Counted::Named("(passthrough)"),
        };
    }

    /// Notes what for.
    pub fn note_route(&mut self, matched: &RouteMatch<'_>) {
        self.endpoint = matched.endpoint().map(|endpoint| endpoint.id);
    }

    /// Notes the rule that would have refused, in observe mode.
    pub fn note_grant(&mut self, grant: &Grant<'_>) {
        if let Some(rule) = grant.would_deny() {
            self.rare().observed = Some(rule.clone());
        }
    }

    /// Notes how the bucket stands after the take.
    pub fn note_standing(&mut self, standing: Option<RateLimitStatus>) {
        self.standing = standing;
    }

    /// Notes the state of the bucket after a pending charge was made or refused.
    pub fn note_pending_charge(&mut self, pending: Option<&PendingCharge<'_>>) {
        if let Some(pending) = pending {
            self.standing = Some(pending.status());
        }
    }

    /// Notes what the request waited for to be sent, if it did.
    pub fn note_slot(&mut self, slot: &Slot) {
        if let Some(held) = slot.throttled() {
            self.rare().held = Some(held);
        }
    }

    /// Notes that the request is about to be sent. Answers when.
    pub fn note_sent(&mut self) -> Instant {
        let now = Instant::now();
        self.sent = Some(self.gateway.clock.at(now));
        now
    }

    /// Where it is noted whether any of the request may have been written to Cal.com.
    pub fn may_be_done(&self) -> &AtomicBool {
        &self.may_be_done
    }

    /// Refuses the request because the program ends first.
    pub fn stopping(&self) -> Refusal {
        Refusal::Stopping { sent: self.may_be_done.load(Ordering::Relaxed) }
    }

    /// Notes status, request id and arrival of a response of Cal.com. An id that repeats `secret` is left out.
    pub fn note_answer<B>(&mut self, answer: &Response<B>, at: Instant, secret: Option<&[u8]>) {
        let status = answer.status();
        let given = answer.headers().get(REQUEST_ID).filter(|id| **id != self.request_id);
        if let Some(id) = given.and_then(|id| id.to_str().ok()).filter(|id| is_safe_token(id)) {
            let shows = |secret: &[u8]| id.as_bytes().windows(secret.len().max(1)).any(|part| part == secret);
            if secret.is_none_or(|secret| !shows(secret)) {
                self.rare().upstream_request_id = Some(id.into());
            }
        }
        self.answered = Some(self.gateway.clock.at(at));
        self.status = Some(status.as_u16());
        if status == http::StatusCode::TOO_MANY_REQUESTS {
            self.gateway.metrics.upstream_429.inc();
        }
    }

    /// Notes the hint that the gateway adds to Cal.com's response.
    pub fn note_hint(&mut self, hint: &HeaderValue) {
        self.rare().detail = hint.to_str().ok().map(str::to_owned);
    }

    /// Notes an answer that the gateway gives itself without refusing.
    pub fn note_answered_here(&mut self, status: http::StatusCode) {
        self.status = Some(status.as_u16());
        self.note_decided();
    }

    /// Notes why the request is refused.
    pub fn note_refusal(&mut self, refusal: &Refusal) {
        self.code = refusal.code();
        if let Some(detail) = refusal.detail() {
            self.rare().detail = Some(detail);
        }
        let status = refusal.status();
        self.status = Some(status.as_u16());
        // The fields of a bucket that did not refuse would contradict Retry-After.
        let is_bucket =
            matches!(refusal, Refusal::RateLimited { .. }) && self.standing.is_some_and(|s| s.remaining == 0);
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) && !is_bucket {
            self.standing = None;
        }
        self.note_decided();
        if let Refusal::UpstreamBudget(held) = refusal {
            let waited = self.sent.unwrap_or_else(|| self.gateway.clock.now()).since(self.started);
            self.rare().held = Some(Throttled { wait: waited, ..*held });
            if self.sent.is_some() && matches!(held.by, ThrottleReason::Refused | ThrottleReason::Edge) {
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
        self.rare().detail = Some(fault.to_string());
        self.complete = true;
    }

    /// Notes that the answer is at its end.
    pub fn note_complete(&mut self) {
        self.complete = true;
    }

    /// Notes that the program ended first.
    fn note_given_up(&mut self) {
        self.status = Some(GIVEN_UP);
        self.rare().detail = Some("given up: calgate ended before the answer did".to_owned());
        self.complete = true;
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
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
            Counted::Consumer(id) => {
                self.snapshot.consumers.list().get(id.index()).map_or(NONE, |consumer| &consumer.name)
            }
            Counted::Named(name) => name,
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.complete && self.gateway.lifecycle.is_stopped() {
            self.note_given_up();
        }
        let status = self.final_status();
        self.count(status);
        if self.snapshot.access_log {
            self.write_line(status);
        }
    }
}
