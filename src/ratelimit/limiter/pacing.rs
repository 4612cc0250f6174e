//! Pacing: which consumers take turns, and when the next turn is.

use std::time::Duration;

use crate::ratelimit::demand::SharedLimit;
use crate::ratelimit::fair_queue::Flow;
use crate::ratelimit::limiter::{Allowance, BudgetLimiter};
use crate::ratelimit::upstream_windows::Pacing;
use crate::time::MonoTime;

/// By how many turns requests that need not wait for one put off those that do.
const MAX_POSTPONED_TURNS: u32 = 4;

impl BudgetLimiter {
    /// Whether a request need not take turns: there is plenty of allowance, or its consumer has less than its part of it.
    pub(super) fn is_express(&self, flow: &Flow, now: MonoTime) -> bool {
        let plenty = self.authority.gateways().is_none() && self.is_plenty(now);
        (plenty && !self.queue.has_waiters()) || self.is_under_fair_share(flow, now)
    }

    /// While half of the budget is free, nobody is kept waiting to spread the rest. In the window after one that need not take
    /// turns found no allowance it is not: all would be used at once, and there would be no allowance again.
    fn is_plenty(&self, now: MonoTime) -> bool {
        let was_starved = self.last_starved.is_some_and(|at| now.since(at) <= self.settings.window);
        !was_starved && self.is_half_free()
    }

    pub(super) fn is_half_free(&self) -> bool {
        self.log.used().saturating_add(self.queue.express()) < self.fair_limit() / 2
    }

    /// Whether a request of `flow` need not take turns even where others have to: as far as this gateway can tell, it has less
    /// than its part.
    pub fn is_under_fair_share(&self, flow: &Flow, now: MonoTime) -> bool {
        self.queue.is_under_fair_share(flow, &self.shared_limit(), now)
    }

    /// What there is, and among how many gateways it is divided.
    pub(super) fn shared_limit(&self) -> SharedLimit {
        SharedLimit { limit: self.effective_limit.get(), window: self.settings.window, gateways: self.gateways() }
    }

    /// What others than `flow` who do not wait for their turn have had in the last window, and will ask for again.
    pub fn light_load(&self, flow: Option<&Flow>) -> u32 {
        self.queue.light_load(flow.map(|flow| flow.key))
    }

    /// When the next turn is: that of `flow`, or of one that waits.
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

    /// A request goes out. One that did not wait for its turn puts off those that do, but not for ever; a turn that a timer
    /// was late for, by less than a turn, does not.
    pub(super) fn took_turn(&mut self, flow: Option<&Flow>, now: MonoTime) {
        let (due, every) = (self.due(flow, now), self.interval());
        let on_time = self.queue.has_waiters() && now.since(due) < every;
        self.last_paced = if on_time { due.min(now.after(every * MAX_POSTPONED_TURNS)) } else { now };
    }

    /// The time in which the limit allows one request.
    pub(super) fn interval(&self) -> Duration {
        let (limit, window) = self.part();
        window / limit.max(1)
    }

    /// How turns are taken: such that what is left, by the log and by Cal.com, lasts until there is more, and so that others
    /// than `flow` who need not take turns find what they will ask for. They are never much closer together than by the
    /// limit; a tenth, so that time lost to a late answer can be made up for.
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

    /// How long a request that asks now will have to wait.
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
