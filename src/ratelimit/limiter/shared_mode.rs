//! The limiter while a limit store decides for several gateways.

use std::time::Duration;

use crate::ratelimit::ThrottleReason;
use crate::ratelimit::authority::{CachedDenial, LimitAuthority};
use crate::ratelimit::ends::Ends;
use crate::ratelimit::limiter::{BudgetLimiter, Wakeup};
use crate::ratelimit::parts::Part;
use crate::ratelimit::usage_headers::LimitReading;
use crate::time::MonoTime;

/// Largest random delay before the store is asked again after a denial, 8 ms: gateways do not come together.
const JITTER_NS: u64 = 8_000_000;

impl BudgetLimiter {
    /// From now on the store decides, for `gateways` that go by it.
    pub fn enter_shared_mode(&mut self, gateways: u32) {
        let (external, denial) = if let LimitAuthority::Store { external, denial, .. } = self.authority {
            (external, denial)
        } else {
            (0, None)
        };
        self.authority = LimitAuthority::Store { gateways: gateways.max(1), external, denial };
    }

    /// Whether it goes by the store.
    pub fn is_shared(&self) -> bool {
        self.authority.gateways().is_some()
    }

    /// Records that the store denies requests for `wait`, if it says how long. It is asked again a little later, by up to 8 ms at random.
    pub fn record_denial(&mut self, by: ThrottleReason, wait: Option<Duration>, now: MonoTime) {
        let jitter = Duration::from_nanos(self.random.u64(..JITTER_NS));
        self.apply_denial(CachedDenial::new(by, wait, jitter, now));
    }

    /// The store has said no. What it held goes back as if it had not been let out.
    pub fn apply_denial(&mut self, denial: CachedDenial) {
        if let LimitAuthority::Store { denial: last, .. } = &mut self.authority {
            *last = Some(denial);
        }
    }

    /// The store has told of the parts that it keeps, when it was asked at `asked`. Tells whether it is to learn soon that this gateway
    /// knows.
    pub fn update_part(&mut self, part: Part, asked: MonoTime) -> bool {
        self.part_lease.update(part, asked, self.is_shared())
    }

    /// The latest epoch of parts that is known here. Only who goes by the store may name it there.
    pub fn epoch(&self) -> u64 {
        self.part_lease.epoch()
    }

    /// It is about to join: it gives up its part.
    pub fn give_up_part(&mut self) {
        self.part_lease.give_up();
    }

    /// The store cannot be asked: from now on this gateway is one of `replicas`, and sends no more than its part until all requests
    /// have an answer or never will that the store let out, which takes `deadline`.
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

    /// The store tells of Cal.com's windows, as far as other gateways' answers have told of them, and of what others use.
    pub fn merge_store_state(&mut self, windows: &[(LimitReading, Ends)], others: u32, now: MonoTime) {
        if let LimitAuthority::Store { external, .. } = &mut self.authority {
            *external = others;
        }
        self.upstream_windows.merge_peer_report(windows, self.window_context(now));
    }

    /// Whether anybody waits who may be let out; and if so, whether without taking turns.
    pub fn needs_store_decision(&mut self, now: MonoTime) -> Option<bool> {
        self.expire(now);
        let may = !self.queue.is_empty() && self.allowance(now).more > 0;
        may.then(|| self.queue.express() > 0)
    }

    /// When the store is asked again for those that wait. A no that has run out is no yes.
    pub(super) fn next_store_poll(&self, now: MonoTime) -> Wakeup {
        if self.queue.is_empty() {
            return Wakeup::Idle;
        }
        Wakeup::At(self.authority.denial(now).map_or(now, |denial| denial.again))
    }

    /// Whether any wait for their turn.
    pub fn has_waiters(&self) -> bool {
        self.queue.has_waiters()
    }

    /// Until when the requests count that are over.
    pub fn expiries(&self) -> impl Iterator<Item = MonoTime> {
        self.log.expiries()
    }
}
