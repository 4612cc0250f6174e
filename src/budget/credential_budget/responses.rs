//! Applies a response to the budget that its limits are about.

#![expect(clippy::disallowed_methods, reason = "dates in response headers are compared with the time of day")]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};

use crate::budget::credential_budget::operations::moved;
use crate::budget::credential_budget::{CredentialBudget, State};
use crate::limit_store::RequestOutcome;
use crate::ratelimit::Throttled;
use crate::ratelimit::limiter::InFlight;
use crate::ratelimit::usage_headers::{self, HeadReading, Ignored, UpstreamOutcome};

impl CredentialBudget {
    /// Records the head of the response to a request for `operation`. Returns the throttling of the credential or operation, if
    /// the limiter refused the request.
    pub(in crate::budget) fn record_response(
        self: &Arc<Self>,
        flight: &InFlight,
        status: StatusCode,
        fields: &HeaderMap,
        operation: impl FnOnce() -> u64,
    ) -> Option<Throttled> {
        let mut state = self.lock();
        let reading = usage_headers::parse(status, fields, SystemTime::now(), state.settings.window);
        if reading.readings.has_implausible || reading.ignored.is_some() {
            self.warn_of_fields(reading.readings.has_implausible, reading.ignored);
        }
        if reading.readings.limits.is_empty() || state.names.are_usual(&reading.readings.limits) {
            return self.settle(&mut state, flight, status, reading);
        }
        drop(state);
        match self.counted_elsewhere(&reading.readings.limits, operation()) {
            None => self.settle(&mut self.lock(), flight, status, reading),
            Some(other) => {
                self.mark_unsent(flight);
                other.count(moved(flight), status, reading)
            }
        }
    }

    /// Applies a response whose limits belong to this budget.
    pub(super) fn settle(
        &self,
        state: &mut State,
        flight: &InFlight,
        status: StatusCode,
        reading: HeadReading,
    ) -> Option<Throttled> {
        let HeadReading { outcome, readings, .. } = reading;
        // Cal.com reports its limits if it counts a request (FACTS §2). A proxy in front of it that answers instead may do so
        // after Cal.com has counted the request.
        if outcome == UpstreamOutcome::Unclear && readings.limits.is_empty() && status.is_server_error() {
            self.lose(state, flight, Duration::ZERO);
            self.change(state);
            return None;
        }
        let now = self.clock.now();
        let known =
            matches!(outcome, UpstreamOutcome::Passed | UpstreamOutcome::Unclear) || state.limiter.is_blocked(now);
        let held = state.limiter.record_response(flight, outcome, &readings, now);
        if let Some(held) = held.filter(|_| !known) {
            self.warn_of_block(status, held);
        }
        if self.watches_limit.load(Ordering::Relaxed) {
            self.check_limit(state);
        }
        if let Some(member) = &self.member {
            let (ago, settings) = (now.since(flight.sent()), state.settings);
            member.settle(&mut state.in_flight, settings, flight, RequestOutcome::answered(ago, outcome, readings));
        }
        self.change(state);
        held
    }

    /// Records that the edge limits the rate, as the body of a response says whose head looked like no refusal.
    pub(in crate::budget) fn record_edge_limit(&self, status: StatusCode, fields: &HeaderMap) {
        let now = self.clock.now();
        let mut state = self.lock();
        let (settings, known) = (state.settings, state.limiter.is_blocked(now));
        let (retry_after, ignored) = usage_headers::retry_after(fields, SystemTime::now(), settings.window);
        self.warn_of_fields(false, ignored);
        let held = state.limiter.record_edge_limit(retry_after, now);
        if !known {
            self.warn_of_block(status, held);
        }
        if let Some(member) = &self.member {
            // The store has already recorded the outcome of the request itself.
            member.report_edge_limit(settings, retry_after);
        }
        self.change(&mut state);
    }

    /// Logs once that Cal.com grants fewer requests than configured. A key from `POST /v2/api-keys/refresh` loses a raised limit
    /// (FACTS §1).
    fn check_limit(&self, state: &State) {
        let (granted, configured) = (state.limiter.limit(), state.settings.limit);
        if granted < configured && self.watches_limit.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                credential = &*self.name,
                granted,
                configured,
                "Cal.com grants fewer requests per window than requests_per_minute; using the lower limit"
            );
        }
    }

    fn warn_of_block(&self, status: StatusCode, held: Throttled) {
        let (credential, status, seconds) = (&*self.name, status.as_u16(), held.wait.as_secs());
        let scope = if self.credential.is_some() { "operation" } else { "credential" };
        tracing::warn!(
            credential,
            scope,
            status,
            by = held.by.name(),
            seconds,
            "Cal.com's limiter refused a request; sending nothing in this scope until the block ends"
        );
    }

    /// Logs fields of a response that are ignored, at most once per second.
    fn warn_of_fields(&self, absurd: bool, ignored: Option<Ignored>) {
        if absurd && !self.absurd.swap(true, Ordering::Relaxed) {
            tracing::warn!(credential = &*self.name, "ignoring implausible rate limit headers of Cal.com");
        }
        if let Some(Ignored { field, seconds }) = ignored.filter(|_| self.warned.try_start(self.clock.now())) {
            let credential = &*self.name;
            tracing::warn!(credential, field, seconds, "ignoring a time from upstream that is longer than any block");
        }
    }
}
