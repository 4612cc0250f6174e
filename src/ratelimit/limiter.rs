//! The limiter of one credential or operation: a state limiter that sends, queues or refuses requests.
//!
//! It knows no clock, no task and no socket. Every call is told what time it is, so that what simulated time and the
//! property tests drive is the very code that runs. `budget` gives it a lock and a timer.

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

/// Waits after a 429 are longer by up to one part in so many, so that gateways do not come back together.
const JITTER_DIVISOR: u64 = 32;

/// The answer to [`BudgetLimiter::admit`].
#[derive(Debug)]
pub enum Decision {
    /// Send.
    Admit(InFlight),
    /// Wait: [`BudgetLimiter::poll_next`] will tell when it is this one's turn. The second value is the reason.
    Queue(Ticket, ThrottleReason),
    /// Waiting would take too long.
    Reject(Throttled),
}

/// The answer to [`BudgetLimiter::poll_next`].
#[derive(Debug)]
pub enum Wakeup {
    /// This one may send.
    Admit(Ticket, InFlight),
    /// Nobody may before then, or the store is not asked before then; sooner only after an answer.
    At(MonoTime),
    /// Nobody may before an answer comes, or nobody waits.
    Idle,
}

/// The budget of one limit.
#[derive(Debug)]
pub struct BudgetLimiter {
    settings: Settings,
    authority: LimitAuthority,
    effective_limit: EffectiveLimit,
    log: SlidingLog,
    /// What a store keeps for this gateway, and the requests that were let out of that.
    part_lease: parts::PartLease,
    part_log: SlidingLog,
    upstream_windows: UpstreamWindows,
    refused: BlockBackoff,
    edge: BlockBackoff,
    queue: FairQueue,
    /// When the last request went out, or should have.
    last_paced: MonoTime,
    /// When one that need not take turns last found no allowance.
    last_starved: Option<MonoTime>,
    random: Rng,
}

/// How many may go out now, what keeps it so low, and when that changes by itself.
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
    /// A budget that nothing has been sent on. `seed` tells its waits apart from those of other gateways.
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

    /// A reload: other numbers, the same log, gate and queue.
    pub fn configure(&mut self, settings: Settings) {
        let before = self.replicas();
        self.effective_limit.configure(settings.limit, settings.learn_limit);
        self.settings = settings;
        if self.replicas() != before {
            self.upstream_windows.gateways_changed();
        }
    }

    /// A request comes. Said once of each, however often it asks.
    pub fn record_arrival(&mut self, flow: &Flow, now: MonoTime) {
        self.queue.record_arrival(flow, &self.shared_limit(), now);
    }

    /// Lets a request out, lines it up, or refuses it, if it may wait `patience` at most.
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

    /// Lets a request out whatever the budget says, and tells what would have held it.
    pub fn admit_observed(&mut self, flow: &Flow, now: MonoTime) -> (InFlight, Option<ThrottleReason>) {
        self.expire(now);
        let allowance = self.allowance(now);
        self.queue.record_express(flow);
        (self.start(flow.key, now), (allowance.more == 0).then_some(allowance.by))
    }

    /// Takes on a request of `consumer` that was sent at `sent` by another budget, and that Cal.com counts here.
    pub fn adopt(&mut self, consumer: u64, sent: MonoTime) -> InFlight {
        self.start(consumer, sent)
    }

    /// Who may send next, of those that wait. Where the store decides, nobody is without its word.
    pub fn poll_next(&mut self, now: MonoTime) -> Wakeup {
        if self.is_shared() { self.next_store_poll(now) } else { self.next_admitted(now) }
    }

    /// The same where the store, if it is that which decides, has said yes.
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

    /// A waiting request gives up. Answers whether it was still waiting.
    pub fn cancel(&mut self, ticket: Ticket, flow: &Flow) -> bool {
        self.queue.cancel(ticket, flow.key)
    }

    /// What a request that gives up now is told.
    pub fn throttled(&mut self, flow: &Flow, by: ThrottleReason, now: MonoTime) -> Throttled {
        self.expire(now);
        let allowance = self.allowance(now);
        let by = if allowance.more == 0 { allowance.by } else { by };
        Throttled { by, wait: self.estimate(flow, false, &allowance, now) }
    }

    /// The answer to a request has come. Tells what to answer instead where the limiter refused it.
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

    /// The edge limits the rate, as the body of an answer says.
    pub fn record_edge_limit(&mut self, retry_after: Option<Duration>, now: MonoTime) -> Throttled {
        self.edge.block_edge(now, retry_after);
        self.blocked(now).unwrap_or(Throttled { by: ThrottleReason::Edge, wait: Duration::ZERO })
    }

    /// By what, and for how long, nothing is sent after a no, whoever decides on requests. Where both have said no, it is
    /// Cal.com's own that is told, as a store tells it.
    fn blocked(&self, now: MonoTime) -> Option<Throttled> {
        let held = |(breaker, by): (&BlockBackoff, ThrottleReason)| {
            breaker.cap(now)?.1.map(|until| Throttled { by, wait: until.since(now) })
        };
        [(&self.refused, ThrottleReason::Refused), (&self.edge, ThrottleReason::Edge)].into_iter().find_map(held)
    }

    /// Whether Cal.com's limiter, or the edge, has refused, and it is not over yet.
    pub fn is_blocked(&self, now: MonoTime) -> bool {
        [&self.refused, &self.edge].iter().any(|breaker| breaker.cap(now).is_some())
    }

    /// Whether it is as good as new.
    pub fn is_unused(&mut self, now: MonoTime) -> bool {
        self.expire(now);
        let window = self.settings.window;
        let is_free = self.log.used() == 0 && self.queue.is_empty();
        is_free && [&self.refused, &self.edge].iter().all(|breaker| breaker.has_passed(window, now))
    }

    /// How it stands.
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

    /// The limit in force here, and how long a request counts: a part of either where several gateways have nothing of
    /// Cal.com's to go by.
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

    /// Gateways that share nothing; those on a store are one.
    fn replicas(&self) -> u32 {
        if self.authority.gateways().is_some() { 1 } else { self.settings.replicas }
    }

    fn window_context(&self, at: MonoTime) -> WindowContext {
        let (in_flight, gateways, limit) = (self.log.in_flight(), self.replicas(), self.effective_limit.get());
        WindowContext { at, in_flight, gateways, limit, window: self.settings.window }
    }

    /// What this gateway can count on: all, or an equal part of it.
    fn fair_limit(&self) -> u32 {
        (self.effective_limit.get() / self.gateways().max(1)).max(1)
    }

    /// How many gateways consumers' requests are divided among, as far as it is known here.
    fn gateways(&self) -> u32 {
        self.authority.gateways().unwrap_or(self.settings.replicas)
    }

    /// Of several that keep it as low, the first that is looked at is told.
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

    /// A random part of `whole / JITTER_DIVISOR`.
    fn draw(&mut self, whole: Duration) -> Duration {
        let most = nanoseconds(whole) / JITTER_DIVISOR;
        Duration::from_nanos(self.random.u64(..most.max(1)))
    }
}
