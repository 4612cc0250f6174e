//! The limiter of one credential or operation: a state machine that admits, queues or rejects requests.
//!
//! It has no clock, no task and no socket. The caller passes the time to each call, so simulated time and the property tests
//! drive the code that production runs. `budget` gives it a lock and a timer.

mod in_flight;
mod pacing;
mod shared_mode;
mod used;

use std::time::Duration;

use fastrand::Rng;
pub use in_flight::InFlight;

use super::authority::{CachedDenial, LimitAuthority};
use super::backoff::BlockBackoff;
use super::effective_limit::EffectiveLimit;
use super::fair_queue::{FairQueue, Flow, Ticket};
use super::replica_share::equal_part;
use super::sliding_log::SlidingLog;
pub use super::status::BudgetStatus;
use super::upstream_windows::{UpstreamWindows, WindowContext};
use super::usage_headers::{LimitReadings, UpstreamOutcome};
use super::{Settings, ThrottleReason, Throttled, parts};
use crate::time::{MonoTime, nanoseconds};

/// Divisor of the window for the largest random addition to a wait after a 429, so that gateways do not resume together.
const JITTER_DIVISOR: u64 = 32;

/// Decision of [`BudgetLimiter::admit`].
#[derive(Debug)]
pub enum Decision {
    /// The request may be sent.
    Admit(InFlight),
    /// The request waits for the reason given. [`BudgetLimiter::poll_next`] returns it when it may be sent.
    Queue(Ticket, ThrottleReason),
    /// The request would wait too long.
    Reject(Throttled),
}

/// Result of [`BudgetLimiter::poll_next`].
#[derive(Debug)]
pub enum Wakeup {
    /// This request may be sent.
    Admit(Ticket, InFlight),
    /// No request may be sent before this time, or the store is not asked before it. A response can change that earlier.
    At(MonoTime),
    /// No request waits, or none may be sent before a response.
    Idle,
}

/// Limiter of one limit.
#[derive(Debug)]
pub struct BudgetLimiter {
    settings: Settings,
    authority: LimitAuthority,
    effective_limit: EffectiveLimit,
    log: SlidingLog,
    /// The part that the store reserves for this gateway, and the log of requests that used it.
    part_lease: parts::PartLease,
    part_log: SlidingLog,
    upstream_windows: UpstreamWindows,
    refused: BlockBackoff,
    edge: BlockBackoff,
    queue: FairQueue,
    /// When the last paced request was due.
    last_paced: MonoTime,
    /// When an express request last found no capacity.
    last_starved: Option<MonoTime>,
    random: Rng,
}

/// Requests that may be sent now, the reason why there are no more, and when that changes by itself.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    more: u32,
    by: ThrottleReason,
    until: Option<MonoTime>,
}

impl Allowance {
    fn tighten(&mut self, more: u32, by: ThrottleReason, until: Option<MonoTime>) {
        if more < self.more {
            *self = Self { more, by, until };
        }
    }
}

impl BudgetLimiter {
    /// Creates a limiter without requests. `seed` makes its random waits differ from those of other gateways.
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            effective_limit: EffectiveLimit::new(settings.limit, settings.learn_limit),
            settings,
            authority: LimitAuthority::default(),
            log: SlidingLog::default(),
            part_lease: parts::PartLease::default(),
            part_log: SlidingLog::default(),
            upstream_windows: UpstreamWindows::default(),
            refused: BlockBackoff::default(),
            edge: BlockBackoff::default(),
            queue: FairQueue::default(),
            last_paced: MonoTime::default(),
            last_starved: None,
            random: Rng::with_seed(seed),
        }
    }

    /// Applies a reload. The log, the windows and the queue stay.
    pub fn configure(&mut self, settings: Settings) {
        let before = self.replicas();
        self.effective_limit.configure(settings.limit, settings.learn_limit);
        self.settings = settings;
        if self.replicas() != before {
            self.upstream_windows.gateways_changed();
        }
    }

    /// Records the arrival of a request. Called once for each request, however often it is tried.
    pub fn record_arrival(&mut self, flow: &Flow, now: MonoTime) {
        self.queue.record_arrival(flow, &self.shared_limit(), now);
    }

    /// Admits a request, queues it, or rejects it if it would wait longer than `patience`.
    pub fn admit(&mut self, flow: &Flow, patience: Duration, now: MonoTime) -> Decision {
        self.expire(now);
        let allowance = self.allowance(now);
        let express = self.is_express(flow, now);
        let free = allowance.more > self.queue.express();
        if express && !free && !self.is_half_free() {
            self.last_starved = Some(now);
        }
        let due = express || (!self.queue.has_waiters() && now >= self.due(Some(flow), now));
        if free && due {
            self.took_turn(Some(flow), now);
            self.queue.record_express(flow);
            return Decision::Admit(InFlight { express, ..self.start(flow.key, now) });
        }
        let by = if free { ThrottleReason::Pace } else { allowance.by };
        let wait = self.estimate(flow, express, &allowance, now);
        if wait > patience {
            return Decision::Reject(Throttled { by, wait });
        }
        match self.queue.enqueue(flow, express) {
            Ok(ticket) => Decision::Queue(ticket, by),
            Err(by) => Decision::Reject(Throttled { by, wait: wait.max(self.interval()) }),
        }
    }

    /// Admits a request in any case. Also returns the reason for which it would have been throttled.
    pub fn admit_observed(&mut self, flow: &Flow, now: MonoTime) -> (InFlight, Option<ThrottleReason>) {
        self.expire(now);
        let allowance = self.allowance(now);
        self.queue.record_express(flow);
        (self.start(flow.key, now), (allowance.more == 0).then_some(allowance.by))
    }

    /// Adds a request that another budget sent at `sent`, and that Cal.com counts here.
    pub fn adopt(&mut self, consumer: u64, sent: MonoTime) -> InFlight {
        self.start(consumer, sent)
    }

    /// Returns the next waiting request that may be sent. While the store decides, none may be sent without its decision.
    pub fn poll_next(&mut self, now: MonoTime) -> Wakeup {
        if self.is_shared() { self.next_store_poll(now) } else { self.next_admitted(now) }
    }

    /// Returns the next waiting request that may be sent, after the store, if it decides, has admitted one.
    pub fn next_admitted(&mut self, now: MonoTime) -> Wakeup {
        self.expire(now);
        if self.queue.is_empty() {
            return Wakeup::Idle;
        }
        let allowance = self.allowance(now);
        if allowance.more == 0 {
            return allowance.until.map_or(Wakeup::Idle, |at| Wakeup::At(at.max(MonoTime(now.0 + 1))));
        }
        let due = self.due(None, now);
        if self.queue.express() == 0 && now < due {
            return Wakeup::At(due);
        }
        self.took_turn(None, now);
        let taken = self.queue.next_express().or_else(|| self.queue.next_turn());
        let Some((ticket, key)) = taken else { return Wakeup::Idle };
        self.queue.record_start(key);
        Wakeup::Admit(ticket, self.start(key, now))
    }

    /// Removes a waiting request. Returns whether it was still waiting.
    pub fn cancel(&mut self, ticket: Ticket, flow: &Flow) -> bool {
        self.queue.cancel(ticket, flow.key)
    }

    /// Returns the refusal of a request that stops waiting now.
    pub fn throttled(&mut self, flow: &Flow, by: ThrottleReason, now: MonoTime) -> Throttled {
        self.expire(now);
        let allowance = self.allowance(now);
        let by = if allowance.more == 0 { allowance.by } else { by };
        Throttled { by, wait: self.estimate(flow, false, &allowance, now) }
    }

    /// Records the response to a request. Returns the throttling if Cal.com or the edge refused the request.
    pub fn record_response(
        &mut self,
        flight: &InFlight,
        outcome: UpstreamOutcome,
        readings: &LimitReadings,
        now: MonoTime,
    ) -> Option<Throttled> {
        self.complete(flight, now);
        if outcome == UpstreamOutcome::Passed || !readings.limits.is_empty() {
            self.upstream_windows.observe(&readings.limits, flight.sent, self.window_context(now));
        }
        if let Some(limit) = readings.limits.iter().filter_map(|seen| seen.limit).max() {
            self.effective_limit.observe(limit);
        }
        let by = match outcome {
            UpstreamOutcome::Passed => {
                self.refused.record_success(flight.sent);
                self.edge.record_success(flight.sent);
                return None;
            }
            UpstreamOutcome::Unclear => return None,
            UpstreamOutcome::Refused { retry_after } => {
                let reset = readings.limits.iter().map(|seen| seen.reset).max();
                let wait = retry_after.into_iter().chain(reset).max().unwrap_or(self.settings.window);
                let until = now.after(wait + self.draw(self.settings.window));
                if self.refused.cap(now).is_none() {
                    self.upstream_windows.suspect_others(self.effective_limit.get(), now);
                }
                self.refused.block(now, until);
                ThrottleReason::Refused
            }
            UpstreamOutcome::Edge { retry_after } => {
                self.edge.block_edge(now, retry_after);
                ThrottleReason::Edge
            }
        };
        Some(self.blocked(now).unwrap_or(Throttled { by, wait: Duration::ZERO }))
    }

    /// Records that the edge limits the rate, as the body of a response says.
    pub fn record_edge_limit(&mut self, retry_after: Option<Duration>, now: MonoTime) -> Throttled {
        self.edge.block_edge(now, retry_after);
        self.blocked(now).unwrap_or(Throttled { by: ThrottleReason::Edge, wait: Duration::ZERO })
    }

    /// Returns the block after a refusal, whoever decides about requests. If both are blocked, Cal.com's own block is returned,
    /// as the store does.
    fn blocked(&self, now: MonoTime) -> Option<Throttled> {
        let held = |(breaker, by): (&BlockBackoff, ThrottleReason)| {
            breaker.cap(now)?.1.map(|until| Throttled { by, wait: until.since(now) })
        };
        [(&self.refused, ThrottleReason::Refused), (&self.edge, ThrottleReason::Edge)].into_iter().find_map(held)
    }

    /// Returns whether a backoff is active after a refusal of Cal.com or of the edge.
    pub fn is_blocked(&self, now: MonoTime) -> bool {
        [&self.refused, &self.edge].iter().any(|breaker| breaker.cap(now).is_some())
    }

    /// Returns whether the limiter is equal to a new one.
    pub fn is_unused(&mut self, now: MonoTime) -> bool {
        self.expire(now);
        let window = self.settings.window;
        let is_free = self.log.used() == 0 && self.queue.is_empty();
        is_free && [&self.refused, &self.edge].iter().all(|breaker| breaker.has_passed(window, now))
    }

    /// Returns the state for metrics and `explain`.
    pub fn status(&mut self, now: MonoTime) -> BudgetStatus {
        self.expire(now);
        let allowance = self.allowance(now);
        BudgetStatus {
            limit: self.effective_limit.get(),
            used: self.log.used(),
            in_flight: self.log.in_flight(),
            waiting: self.queue.len(),
            remaining: self.upstream_windows.remaining(now),
            foreign: self
                .authority
                .external()
                .unwrap_or_else(|| self.upstream_windows.external_usage(now, self.settings.replicas == 1)),
            held_by: (allowance.more == 0).then_some(allowance.by),
        }
    }

    /// Returns the limit in force here, and how long a request counts. Both are an equal part if several gateways have no count
    /// of Cal.com.
    fn part(&self) -> (u32, Duration) {
        let (replicas, window) = (self.replicas(), self.settings.window);
        let limit = self.effective_limit.get();
        if replicas > limit || (replicas > 1 && self.upstream_windows.is_silent()) {
            return equal_part(replicas, limit, window);
        }
        (limit, window)
    }

    fn window(&self) -> Duration {
        self.part().1
    }

    /// Returns the number of gateways that share nothing. Gateways on one store count as one.
    fn replicas(&self) -> u32 {
        if self.authority.gateways().is_some() { 1 } else { self.settings.replicas }
    }

    fn window_context(&self, at: MonoTime) -> WindowContext {
        let (in_flight, gateways, limit) = (self.log.in_flight(), self.replicas(), self.effective_limit.get());
        WindowContext { at, in_flight, gateways, limit, window: self.settings.window }
    }

    /// Returns the limit that this gateway can expect: all of it, or an equal part.
    fn fair_limit(&self) -> u32 {
        (self.effective_limit.get() / self.gateways().max(1)).max(1)
    }

    /// Returns the number of gateways among which the requests of consumers are divided, as far as it is known here.
    fn gateways(&self) -> u32 {
        self.authority.gateways().unwrap_or(self.settings.replicas)
    }

    /// Of several reasons with the same allowance, the first one checked is reported.
    fn allowance(&self, now: MonoTime) -> Allowance {
        if self.authority.gateways().is_some() {
            let held = |denial: CachedDenial| Allowance { more: 0, by: denial.by, until: Some(denial.again) };
            return self
                .authority
                .denial(now)
                .map_or(Allowance { more: u32::MAX, by: ThrottleReason::Pace, until: None }, held);
        }
        let in_flight = self.log.in_flight();
        let mut allowance = Allowance { more: u32::MAX, by: ThrottleReason::Requests, until: None };
        for (breaker, by) in [(&self.refused, ThrottleReason::Refused), (&self.edge, ThrottleReason::Edge)] {
            if let Some((cap, until)) = breaker.cap(now) {
                allowance.tighten(cap.saturating_sub(in_flight), by, until);
            }
        }
        let free = self.part().0.saturating_sub(self.log.used());
        allowance.tighten(free, ThrottleReason::Requests, self.log.next_expiry());
        let headroom = self.upstream_windows.headroom(self.window_context(now));
        allowance.tighten(headroom.more, ThrottleReason::Remaining, headroom.until);
        if let Some(part) = self.part_lease.limit(now) {
            let until = self
                .part_log
                .next_expiry()
                .map_or(self.part_lease.shares_from(), |at| at.min(self.part_lease.shares_from()));
            allowance.tighten(part.saturating_sub(self.part_log.used()), ThrottleReason::Requests, Some(until));
        }
        allowance
    }

    /// Returns a random duration below `whole / JITTER_DIVISOR`.
    fn draw(&mut self, whole: Duration) -> Duration {
        let most = nanoseconds(whole) / JITTER_DIVISOR;
        Duration::from_nanos(self.random.u64(..most.max(1)))
    }
}
