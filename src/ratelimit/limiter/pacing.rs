//! Pacing: which consumers take turns, and when the next turn is.

use std::time::Duration;

use crate::ratelimit::demand::Fair;
use crate::ratelimit::fair_queue::Asker;
use crate::ratelimit::limiter::{Machine, Room};
use crate::ratelimit::upstream_windows::Turns;
use crate::time::MonoTime;

/// By how many turns requests that need not wait for one put off those that do.
const MOST_PUT_OFF: u32 = 4;

impl Machine {
    /// Whether a request need not take turns: there is plenty of room, or its consumer has less than its part of it.
    pub(super) fn is_express(&self, asker: &Asker, now: MonoTime) -> bool {
        let plenty = self.rules.gateways().is_none() && self.is_plenty(now);
        (plenty && !self.queue.has_turns()) || self.is_below_part(asker, now)
    }

    /// While half of the budget is free, nobody is kept waiting to spread the rest. In the window after one that need not take
    /// turns found no room it is not: all would be used at once, and there would be no room again.
    fn is_plenty(&self, now: MonoTime) -> bool {
        let was_wanted = self.wanted.is_some_and(|at| now.since(at) <= self.settings.window);
        !was_wanted && self.is_half_free()
    }

    pub(super) fn is_half_free(&self) -> bool {
        self.log.used().saturating_add(self.queue.express()) < self.fair_limit() / 2
    }

    /// Whether a request of `asker` need not take turns even where others have to: as far as this gateway can tell, it has less
    /// than its part.
    pub fn is_below_part(&self, asker: &Asker, now: MonoTime) -> bool {
        self.queue.is_below_part(asker, &self.fair(), now)
    }

    /// What there is, and among how many gateways it is divided.
    pub(super) fn fair(&self) -> Fair {
        Fair { limit: self.granted.get(), window: self.settings.window, among: self.among() }
    }

    /// What others than `asker` who do not wait for their turn have had in the last window, and will ask for again.
    pub fn light(&self, asker: Option<&Asker>) -> u32 {
        self.queue.light(asker.map(|asker| asker.key))
    }

    /// When the next turn is: that of `asker`, or of one that waits.
    pub(super) fn due(&self, asker: Option<&Asker>, now: MonoTime) -> MonoTime {
        if self.rules.gateways().is_some() || self.is_plenty(now) {
            return now;
        }
        match self.turns(asker, now) {
            Turns::From(at) => at,
            Turns::Every(pace) => self.paced.after(pace),
            Turns::AtOnce => now,
        }
    }

    /// A request goes out. One that did not wait for its turn puts off those that do, but not for ever; a turn that a timer
    /// was late for, by less than a turn, does not.
    pub(super) fn took_turn(&mut self, asker: Option<&Asker>, now: MonoTime) {
        let (due, every) = (self.due(asker, now), self.every());
        let on_time = self.queue.has_turns() && now.since(due) < every;
        self.paced = if on_time { due.min(now.after(every * MOST_PUT_OFF)) } else { now };
    }

    /// The time in which the limit allows one request.
    pub(super) fn every(&self) -> Duration {
        let (limit, window) = self.part();
        window / limit.max(1)
    }

    /// How turns are taken: such that what is left, by the log and by Cal.com, lasts until there is more, and so that others
    /// than `asker` who need not take turns find what they will ask for. They are never much closer together than by the
    /// limit; a tenth, so that time lost to a late answer can be made up for.
    fn turns(&self, asker: Option<&Asker>, now: MonoTime) -> Turns {
        if let Some(gateways) = self.rules.gateways() {
            return Turns::Every(self.every() * gateways);
        }
        let light = if self.replicas() > 1 { self.light(asker) } else { 0 };
        let by_gate = match self.gate.turns(self.gate_now(now), light) {
            Some(Turns::Every(pace)) => pace,
            Some(turns) => return turns,
            None => Duration::ZERO,
        };
        let (limit, window) = self.part();
        let free = limit.saturating_sub(self.log.used()).saturating_sub(self.queue.express());
        let next = self.log.next_release().map_or(window, |at| at.since(now));
        let by_log = next / free.saturating_add(1);
        Turns::Every((self.every() * 9 / 10).max(by_log).max(by_gate.min(window)))
    }

    /// How long a request that asks now will have to wait.
    pub(super) fn estimate(&self, asker: &Asker, express: bool, room: &Room, now: MonoTime) -> Duration {
        let turns = if express { self.queue.express().saturating_add(1) } else { self.queue.turns_until(asker) };
        let free = self.part().0.saturating_sub(self.log.used());
        let by_log = match turns.checked_sub(free) {
            None | Some(0) => Duration::ZERO,
            Some(more) => self.log.nth_release(more).map_or(self.window(), |at| at.since(now)),
        };
        let until = self.rules.no(now).map(|no| no.until).or(room.until);
        let by_room = if room.more == 0 { until.map_or(Duration::ZERO, |at| at.since(now)) } else { Duration::ZERO };
        let by_turn = match self.turns(Some(asker), now) {
            _ if express => Duration::ZERO,
            Turns::Every(pace) => self.due(Some(asker), now).since(now) + pace.saturating_mul(turns.saturating_sub(1)),
            Turns::From(_) | Turns::AtOnce => self.due(Some(asker), now).since(now),
        };
        by_log.max(by_room).max(by_turn)
    }
}
