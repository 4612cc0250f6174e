//! Pacing: which consumers take turns, and when the next turn is due.

use std::time::Duration;

use crate::ratelimit::demand::SharedLimit;
use crate::ratelimit::fair_queue::Flow;
use crate::ratelimit::headroom::Pacing;
use crate::ratelimit::limiter::{Allowance, BudgetLimiter};
use crate::time::MonoTime;

/// Maximum number of turns by which express requests postpone the waiting ones.
const MAX_POSTPONED_TURNS: u32 = 4;

impl BudgetLimiter {
    /// Returns whether a request needs no turn: half of the budget is free, or its consumer is under its fair share.
    pub(super) fn is_express(&self, flow: &Flow, now: MonoTime) -> bool {
        let plenty = self.authority.gateways().is_none() && self.is_plenty(now);
        (plenty && !self.queue.has_waiters()) || self.is_under_fair_share(flow, now)
    }

    /// Returns whether requests are sent without pacing because half of the budget is free. This does not hold in the window
    /// after an express request found no capacity. Otherwise the capacity would be used up at once again.
    fn is_plenty(&self, now: MonoTime) -> bool {
        let was_starved = self.last_starved.is_some_and(|at| now.since(at) <= self.settings.window);
        !was_starved && self.is_half_free()
    }

    pub(super) fn is_half_free(&self) -> bool {
        self.log.used().saturating_add(self.queue.express()) < self.fair_limit() / 2
    }

    /// Returns whether the consumer is under its fair share, as far as this gateway can tell. Its requests then need no turn.
    pub fn is_under_fair_share(&self, flow: &Flow, now: MonoTime) -> bool {
        self.queue.is_under_fair_share(flow, &self.shared_limit(), now)
    }

    /// Returns the limit, and the gateways among which it is divided.
    pub(super) fn shared_limit(&self) -> SharedLimit {
        SharedLimit { limit: self.effective_limit.get(), window: self.settings.window, gateways: self.gateways() }
    }

    /// Returns the requests in the log of consumers that need no turn, except `flow`. They are expected again.
    pub fn light_load(&self, flow: Option<&Flow>) -> u32 {
        self.queue.light_load(flow.map(|flow| flow.key))
    }

    /// Returns when the next turn is due: that of `flow`, or of a waiting request.
    pub(super) fn due(&self, flow: Option<&Flow>, now: MonoTime) -> MonoTime {
        if self.authority.gateways().is_some() || self.is_plenty(now) {
            return now;
        }
        match self.pacing(flow, now) {
            Pacing::NotBefore(at) => at,
            Pacing::Every(pace) => self.last_paced.after(pace),
            Pacing::Immediate => now,
        }
    }

    /// Records a send. An express request postpones the next turn by a bounded time. A turn that the timer served late, by less
    /// than one turn, does not postpone it.
    pub(super) fn took_turn(&mut self, flow: Option<&Flow>, now: MonoTime) {
        let (due, every) = (self.due(flow, now), self.interval());
        let on_time = self.queue.has_waiters() && now.since(due) < every;
        self.last_paced = if on_time { due.min(now.after(every * MAX_POSTPONED_TURNS)) } else { now };
    }

    /// Returns the time in which the limit allows one request.
    pub(super) fn interval(&self) -> Duration {
        let (limit, window) = self.part();
        window / limit.max(1)
    }

    /// Returns the pacing. The rest of the log and of Cal.com's window lasts until there is more, and express requests of other
    /// consumers find capacity. Turns are closer together than the limit's interval by a tenth at most, to make up for time that
    /// a late response cost.
    fn pacing(&self, flow: Option<&Flow>, now: MonoTime) -> Pacing {
        if let Some(gateways) = self.authority.gateways() {
            return Pacing::Every(self.interval() * gateways);
        }
        let light = if self.replicas() > 1 { self.light_load(flow) } else { 0 };
        let by_gate = match self.upstream_windows.pacing(self.window_context(now), light) {
            Some(Pacing::Every(pace)) => pace,
            Some(turns) => return turns,
            None => Duration::ZERO,
        };
        let (limit, window) = self.part();
        let free = limit.saturating_sub(self.log.used()).saturating_sub(self.queue.express());
        let next = self.log.next_expiry().map_or(window, |at| at.since(now));
        let by_log = next / free.saturating_add(1);
        Pacing::Every((self.interval() * 9 / 10).max(by_log).max(by_gate.min(window)))
    }

    /// Returns the expected wait of a request that arrives now.
    pub(super) fn estimate(&self, flow: &Flow, express: bool, allowance: &Allowance, now: MonoTime) -> Duration {
        let turns = if express { self.queue.express().saturating_add(1) } else { self.queue.turns_until(flow) };
        let free = self.part().0.saturating_sub(self.log.used());
        let by_log = match turns.checked_sub(free) {
            None | Some(0) => Duration::ZERO,
            Some(more) => self.log.nth_expiry(more).map_or(self.window(), |at| at.since(now)),
        };
        let until = self.authority.denial(now).map(|denial| denial.until).or(allowance.until);
        let by_room =
            if allowance.more == 0 { until.map_or(Duration::ZERO, |at| at.since(now)) } else { Duration::ZERO };
        let by_turn = match self.pacing(Some(flow), now) {
            _ if express => Duration::ZERO,
            Pacing::Every(pace) => self.due(Some(flow), now).since(now) + pace.saturating_mul(turns.saturating_sub(1)),
            Pacing::NotBefore(_) | Pacing::Immediate => self.due(Some(flow), now).since(now),
        };
        by_log.max(by_room).max(by_turn)
    }
}
