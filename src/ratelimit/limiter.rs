//! The limiter of one credential or operation: a state machine that sends, queues or refuses requests.
//!
//! It knows no clock, no task and no socket. Every call is told what time it is, so that what simulated time and the
//! property tests drive is the very code that runs. `budget` gives it a lock and a timer.

mod in_flight;
mod pacing;
mod shared_mode;
mod used;

use std::time::Duration;

use fastrand::Rng;
pub use in_flight::Flight;

use super::authority::{No, Rules};
use super::backoff::Breaker;
use super::effective_limit::Granted;
use super::fair_queue::{Asker, Queue, Ticket};
use super::replica_share::equal_part;
use super::sliding_log::Log;
pub use super::status::Standing;
use super::upstream_windows::{Gate, Now};
use super::usage_headers::{Told, Verdict};
use super::{Held, Hold, Settings, parts};
use crate::time::{MonoTime, nanoseconds};

/// Waits after a 429 are longer by up to one part in so many, so that gateways do not come back together.
const JITTER: u64 = 32;

/// The answer to [`Machine::ask`].
#[derive(Debug)]
pub enum Asked {
    /// Send.
    Go(Flight),
    /// Wait: [`Machine::next`] will tell when it is this one's turn. Told is what it waits for.
    Wait(Ticket, Hold),
    /// Waiting would take too long.
    Refuse(Held),
}

/// The answer to [`Machine::next`].
#[derive(Debug)]
pub enum Next {
    /// This one may send.
    Go(Ticket, Flight),
    /// Nobody may before then, or the store is not asked before then; sooner only after an answer.
    At(MonoTime),
    /// Nobody may before an answer comes, or nobody waits.
    Idle,
}

/// The budget of one limit.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    rules: Rules,
    granted: Granted,
    log: Log,
    /// What a store keeps for this gateway, and the requests that were let out of that.
    held: parts::Held,
    part_log: Log,
    gate: Gate,
    refused: Breaker,
    edge: Breaker,
    queue: Queue,
    /// When the last request went out, or should have.
    paced: MonoTime,
    /// When one that need not take turns last found no room.
    wanted: Option<MonoTime>,
    random: Rng,
}

/// How many may go out now, what keeps it so low, and when that changes by itself.
#[derive(Debug, Clone, Copy)]
struct Room {
    more: u32,
    by: Hold,
    until: Option<MonoTime>,
}

impl Room {
    fn tighten(&mut self, more: u32, by: Hold, until: Option<MonoTime>) {
        if more < self.more {
            *self = Self { more, by, until };
        }
    }
}

impl Machine {
    /// A budget that nothing has been sent on. `seed` tells its waits apart from those of other gateways.
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            granted: Granted::new(settings.limit, settings.learn_limit),
            settings,
            rules: Rules::default(),
            log: Log::default(),
            held: parts::Held::default(),
            part_log: Log::default(),
            gate: Gate::default(),
            refused: Breaker::default(),
            edge: Breaker::default(),
            queue: Queue::default(),
            paced: MonoTime::default(),
            wanted: None,
            random: Rng::with_seed(seed),
        }
    }

    /// A reload: other numbers, the same log, gate and queue.
    pub fn configure(&mut self, settings: Settings) {
        let before = self.replicas();
        self.granted.configure(settings.limit, settings.learn_limit);
        self.settings = settings;
        if self.replicas() != before {
            self.gate.gateways_changed();
        }
    }

    /// A request comes. Said once of each, however often it asks.
    pub fn comes(&mut self, asker: &Asker, now: MonoTime) {
        self.queue.comes(asker, &self.fair(), now);
    }

    /// Lets a request out, lines it up, or refuses it, if it may wait `patience` at most.
    pub fn ask(&mut self, asker: &Asker, patience: Duration, now: MonoTime) -> Asked {
        self.release(now);
        let room = self.room(now);
        let express = self.is_express(asker, now);
        let free = room.more > self.queue.express();
        if express && !free && !self.is_half_free() {
            self.wanted = Some(now);
        }
        let due = express || (!self.queue.has_turns() && now >= self.due(Some(asker), now));
        if free && due {
            self.took_turn(Some(asker), now);
            self.queue.passed(asker);
            return Asked::Go(Flight { express, ..self.let_out(asker.key, now) });
        }
        let by = if free { Hold::Pace } else { room.by };
        let wait = self.estimate(asker, express, &room, now);
        if wait > patience {
            return Asked::Refuse(Held { by, wait });
        }
        match self.queue.line_up(asker, express) {
            Ok(ticket) => Asked::Wait(ticket, by),
            Err(by) => Asked::Refuse(Held { by, wait: wait.max(self.every()) }),
        }
    }

    /// Lets a request out whatever the budget says, and tells what would have held it.
    pub fn ask_only_observing(&mut self, asker: &Asker, now: MonoTime) -> (Flight, Option<Hold>) {
        self.release(now);
        let room = self.room(now);
        self.queue.passed(asker);
        (self.let_out(asker.key, now), (room.more == 0).then_some(room.by))
    }

    /// Takes on a request of `consumer` that was sent at `sent` by another budget, and that Cal.com counts here.
    pub fn adopt(&mut self, consumer: u64, sent: MonoTime) -> Flight {
        self.let_out(consumer, sent)
    }

    /// Who may send next, of those that wait. Where the store decides, nobody is without its word.
    pub fn next(&mut self, now: MonoTime) -> Next {
        if self.is_by_store() { self.next_question(now) } else { self.next_allowed(now) }
    }

    /// The same where the store, if it is that which decides, has said yes.
    pub fn next_allowed(&mut self, now: MonoTime) -> Next {
        self.release(now);
        if self.queue.is_empty() {
            return Next::Idle;
        }
        let room = self.room(now);
        if room.more == 0 {
            return room.until.map_or(Next::Idle, |at| Next::At(at.max(MonoTime(now.0 + 1))));
        }
        let due = self.due(None, now);
        if self.queue.express() == 0 && now < due {
            return Next::At(due);
        }
        self.took_turn(None, now);
        let taken = self.queue.next_express().or_else(|| self.queue.next_turn());
        let Some((ticket, key)) = taken else { return Next::Idle };
        self.queue.sent(key);
        Next::Go(ticket, self.let_out(key, now))
    }

    /// A waiting request gives up. Answers whether it was still waiting.
    pub fn leave(&mut self, ticket: Ticket, asker: &Asker) -> bool {
        self.queue.leave(ticket, asker.key)
    }

    /// What a request that gives up now is told.
    pub fn held(&mut self, asker: &Asker, by: Hold, now: MonoTime) -> Held {
        self.release(now);
        let room = self.room(now);
        let by = if room.more == 0 { room.by } else { by };
        Held { by, wait: self.estimate(asker, false, &room, now) }
    }

    /// The answer to a request has come. Tells what to answer instead where the limiter refused it.
    pub fn answered(&mut self, flight: &Flight, verdict: Verdict, told: &Told, now: MonoTime) -> Option<Held> {
        self.over(flight, now);
        if verdict == Verdict::Passed || !told.limits.is_empty() {
            self.gate.answered(&told.limits, flight.sent, self.gate_now(now));
        }
        if let Some(limit) = told.limits.iter().filter_map(|seen| seen.limit).max() {
            self.granted.told(limit);
        }
        let by = match verdict {
            Verdict::Passed => {
                self.refused.good(flight.sent);
                self.edge.good(flight.sent);
                return None;
            }
            Verdict::Unclear => return None,
            Verdict::Refused { retry_after } => {
                let reset = told.limits.iter().map(|seen| seen.reset).max();
                let wait = retry_after.into_iter().chain(reset).max().unwrap_or(self.settings.window);
                let until = now.after(wait + self.draw(self.settings.window));
                if self.refused.cap(now).is_none() {
                    self.gate.suspect_others(self.granted.get(), now);
                }
                self.refused.block(now, until);
                Hold::Refused
            }
            Verdict::Edge { retry_after } => {
                self.edge.block_edge(now, retry_after);
                Hold::Edge
            }
        };
        Some(self.blocked(now).unwrap_or(Held { by, wait: Duration::ZERO }))
    }

    /// The edge limits the rate, as the body of an answer says.
    pub fn limited_by_edge(&mut self, retry_after: Option<Duration>, now: MonoTime) -> Held {
        self.edge.block_edge(now, retry_after);
        self.blocked(now).unwrap_or(Held { by: Hold::Edge, wait: Duration::ZERO })
    }

    /// By what, and for how long, nothing is sent after a no, whoever decides on requests. Where both have said no, it is
    /// Cal.com's own that is told, as a store tells it.
    fn blocked(&self, now: MonoTime) -> Option<Held> {
        let held =
            |(breaker, by): (&Breaker, Hold)| breaker.cap(now)?.1.map(|until| Held { by, wait: until.since(now) });
        [(&self.refused, Hold::Refused), (&self.edge, Hold::Edge)].into_iter().find_map(held)
    }

    /// Whether Cal.com's limiter, or the edge, has refused, and it is not over yet.
    pub fn is_refused(&self, now: MonoTime) -> bool {
        [&self.refused, &self.edge].iter().any(|breaker| breaker.cap(now).is_some())
    }

    /// Whether it is as good as new.
    pub fn is_unused(&mut self, now: MonoTime) -> bool {
        self.release(now);
        let window = self.settings.window;
        let is_free = self.log.used() == 0 && self.queue.is_empty();
        is_free && [&self.refused, &self.edge].iter().all(|breaker| breaker.is_past(window, now))
    }

    /// How it stands.
    pub fn standing(&mut self, now: MonoTime) -> Standing {
        self.release(now);
        let room = self.room(now);
        Standing {
            limit: self.granted.get(),
            used: self.log.used(),
            in_flight: self.log.in_flight(),
            waiting: self.queue.len(),
            remaining: self.gate.remaining(now),
            foreign: self.rules.foreign().unwrap_or_else(|| self.gate.foreign(now, self.settings.replicas == 1)),
            held_by: (room.more == 0).then_some(room.by),
        }
    }

    /// The limit in force here, and how long a request counts: a part of either where several gateways have nothing of
    /// Cal.com's to go by.
    fn part(&self) -> (u32, Duration) {
        let (replicas, window) = (self.replicas(), self.settings.window);
        let limit = self.granted.get();
        if replicas > limit || (replicas > 1 && self.gate.is_silent()) {
            return equal_part(replicas, limit, window);
        }
        (limit, window)
    }

    fn window(&self) -> Duration {
        self.part().1
    }

    /// Gateways that share nothing; those on a store are one.
    fn replicas(&self) -> u32 {
        if self.rules.gateways().is_some() { 1 } else { self.settings.replicas }
    }

    fn gate_now(&self, at: MonoTime) -> Now {
        let (in_flight, gateways, limit) = (self.log.in_flight(), self.replicas(), self.granted.get());
        Now { at, in_flight, gateways, limit, window: self.settings.window }
    }

    /// What this gateway can count on: all, or an equal part of it.
    fn fair_limit(&self) -> u32 {
        (self.granted.get() / self.among().max(1)).max(1)
    }

    /// How many gateways consumers' requests are divided among, as far as it is known here.
    fn among(&self) -> u32 {
        self.rules.gateways().unwrap_or(self.settings.replicas)
    }

    /// Of several that keep it as low, the first that is looked at is told.
    fn room(&self, now: MonoTime) -> Room {
        if self.rules.gateways().is_some() {
            let held = |no: No| Room { more: 0, by: no.by, until: Some(no.again) };
            return self.rules.no(now).map_or(Room { more: u32::MAX, by: Hold::Pace, until: None }, held);
        }
        let in_flight = self.log.in_flight();
        let mut room = Room { more: u32::MAX, by: Hold::Requests, until: None };
        for (breaker, by) in [(&self.refused, Hold::Refused), (&self.edge, Hold::Edge)] {
            if let Some((cap, until)) = breaker.cap(now) {
                room.tighten(cap.saturating_sub(in_flight), by, until);
            }
        }
        let free = self.part().0.saturating_sub(self.log.used());
        room.tighten(free, Hold::Requests, self.log.next_release());
        let gate = self.gate.room(self.gate_now(now));
        room.tighten(gate.more, Hold::Remaining, gate.until);
        if let Some(part) = self.held.limit(now) {
            let until =
                self.part_log.next_release().map_or(self.held.shares_from(), |at| at.min(self.held.shares_from()));
            room.tighten(part.saturating_sub(self.part_log.used()), Hold::Requests, Some(until));
        }
        room
    }

    /// A random part of `whole / JITTER`.
    fn draw(&mut self, whole: Duration) -> Duration {
        let most = nanoseconds(whole) / JITTER;
        Duration::from_nanos(self.random.u64(..most.max(1)))
    }
}
