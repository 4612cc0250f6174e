//! Shared mode: the limit store decides for several gateways.

use std::time::Duration;

use crate::ratelimit::ThrottleReason;
use crate::ratelimit::authority::{CachedDenial, LimitAuthority};
use crate::ratelimit::ends::Ends;
use crate::ratelimit::limiter::{BudgetLimiter, Wakeup};
use crate::ratelimit::parts::Part;
use crate::ratelimit::usage_headers::LimitReading;
use crate::time::MonoTime;

/// Largest random delay before the store is asked again after a denial, 8 ms, so that gateways do not ask together.
const JITTER_NS: u64 = 8_000_000;

impl BudgetLimiter {
    /// Enters shared mode: the store decides, for `gateways` gateways.
    pub fn enter_shared_mode(&mut self, gateways: u32) {
        let (external, denial) = if let LimitAuthority::Store { external, denial, .. } = self.authority {
            (external, denial)
        } else {
            (0, None)
        };
        self.authority = LimitAuthority::Store { gateways: gateways.max(1), external, denial };
    }

    /// Returns whether the store decides.
    pub fn is_shared(&self) -> bool {
        self.authority.gateways().is_some()
    }

    /// Records a denial of the store that lasts for `wait`, if the store reports a wait. The store is asked again after up to 8
    /// ms more, at random.
    pub fn record_denial(&mut self, by: ThrottleReason, wait: Option<Duration>, now: MonoTime) {
        let jitter = Duration::from_nanos(self.random.u64(..JITTER_NS));
        self.apply_denial(CachedDenial::new(by, wait, jitter, now));
    }

    /// Caches a denial of the store.
    pub fn apply_denial(&mut self, denial: CachedDenial) {
        if let LimitAuthority::Store { denial: last, .. } = &mut self.authority {
            *last = Some(denial);
        }
    }

    /// Records the part that the store reported in reply to a call at `asked`. Returns whether the store should learn soon that
    /// this gateway knows.
    pub fn update_part(&mut self, part: Part, asked: MonoTime) -> bool {
        self.part_lease.update(part, asked, self.is_shared())
    }

    /// Returns the latest known epoch of parts. Only a gateway in shared mode may send it to the store.
    pub fn epoch(&self) -> u64 {
        self.part_lease.epoch()
    }

    /// Gives up the reserved part, before the gateway joins or leaves the store.
    pub fn give_up_part(&mut self) {
        self.part_lease.give_up();
    }

    /// Leaves shared mode because the store is unavailable. From now on this gateway is one of `replicas`. It sends no more than
    /// its part until the requests that the store admitted no longer count. Each of them has a response, or never gets one, after
    /// `deadline`.
    pub fn leave_shared_mode(&mut self, replicas: u32, deadline: Duration, now: MonoTime) {
        let before = self.replicas();
        if let Some(others) = self.authority.external() {
            self.upstream_windows.expect_others(others);
            self.part_lease.start_offline(self.settings.window, deadline, now);
        }
        self.authority = LimitAuthority::Local;
        self.settings.replicas = replicas.max(1);
        if self.replicas() != before {
            self.upstream_windows.gateways_changed();
        }
    }

    /// Merges Cal.com's windows and the usage of other clients, as the store reports them.
    pub fn merge_store_state(&mut self, windows: &[(LimitReading, Ends)], others: u32, now: MonoTime) {
        if let LimitAuthority::Store { external, .. } = &mut self.authority {
            *external = others;
        }
        self.upstream_windows.merge_peer_report(windows, self.window_context(now));
    }

    /// Returns whether the store has to decide about a waiting request, and if so, whether that request is express.
    pub fn needs_store_decision(&mut self, now: MonoTime) -> Option<bool> {
        self.expire(now);
        let may = !self.queue.is_empty() && self.allowance(now).more > 0;
        may.then(|| self.queue.express() > 0)
    }

    /// Returns when the store is asked again for the waiting requests. An expired denial admits nothing.
    pub(super) fn next_store_poll(&self, now: MonoTime) -> Wakeup {
        if self.queue.is_empty() {
            return Wakeup::Idle;
        }
        Wakeup::At(self.authority.denial(now).map_or(now, |denial| denial.again))
    }

    /// Returns whether requests wait for a turn.
    pub fn has_waiters(&self) -> bool {
        self.queue.has_waiters()
    }

    /// Returns when each completed request stops counting.
    pub fn expiries(&self) -> impl Iterator<Item = MonoTime> {
        self.log.expiries()
    }
}
