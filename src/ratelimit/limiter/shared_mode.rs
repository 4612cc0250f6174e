//! The limiter while a limit store decides for several gateways.

use std::time::Duration;

use crate::ratelimit::Hold;
use crate::ratelimit::authority::{No, Rules};
use crate::ratelimit::ends::Ends;
use crate::ratelimit::limiter::{Machine, Next};
use crate::ratelimit::parts::Part;
use crate::ratelimit::usage_headers::Seen;
use crate::time::MonoTime;

/// Largest random delay before the store is asked again after a denial, 8 ms: gateways do not come together.
const JITTER_NS: u64 = 8_000_000;

impl Machine {
    /// From now on the store decides, for `gateways` that go by it.
    pub fn go_by_store(&mut self, gateways: u32) {
        let (foreign, no) = if let Rules::Store { foreign, no, .. } = self.rules { (foreign, no) } else { (0, None) };
        self.rules = Rules::Store { gateways: gateways.max(1), foreign, no };
    }

    /// Whether it goes by the store.
    pub fn is_by_store(&self) -> bool {
        self.rules.gateways().is_some()
    }

    /// Records that the store denies requests for `wait`, if it says how long. It is asked again a little later, by up to 8 ms at random.
    pub fn denied_by_store(&mut self, by: Hold, wait: Option<Duration>, now: MonoTime) {
        let jitter = Duration::from_nanos(self.random.u64(..JITTER_NS));
        self.held_by_store(No::new(by, wait, jitter, now));
    }

    /// The store has said no. What it held goes back as if it had not been let out.
    pub fn held_by_store(&mut self, no: No) {
        if let Rules::Store { no: last, .. } = &mut self.rules {
            *last = Some(no);
        }
    }

    /// The store has told of the parts that it keeps, when it was asked at `asked`. Tells whether it is to learn soon that this gateway
    /// knows.
    pub fn told_part(&mut self, part: Part, asked: MonoTime) -> bool {
        self.held.told(part, asked, self.is_by_store())
    }

    /// The latest epoch of parts that is known here. Only who goes by the store may name it there.
    pub fn epoch(&self) -> u64 {
        self.held.epoch()
    }

    /// It is about to join: it gives up its part.
    pub fn give_up_part(&mut self) {
        self.held.give_up();
    }

    /// The store cannot be asked: from now on this gateway is one of `replicas`, and sends no more than its part until all requests
    /// have an answer or never will that the store let out, which takes `deadline`.
    pub fn go_alone(&mut self, replicas: u32, deadline: Duration, now: MonoTime) {
        let before = self.replicas();
        if let Some(others) = self.rules.foreign() {
            self.gate.expect_others(others);
            self.held.leave(self.settings.window, deadline, now);
        }
        self.rules = Rules::Own;
        self.settings.replicas = replicas.max(1);
        if self.replicas() != before {
            self.gate.gateways_changed();
        }
    }

    /// The store tells of Cal.com's windows, as far as other gateways' answers have told of them, and of what others use.
    pub fn told_by_store(&mut self, windows: &[(Seen, Ends)], others: u32, now: MonoTime) {
        if let Rules::Store { foreign, .. } = &mut self.rules {
            *foreign = others;
        }
        self.gate.heard(windows, self.gate_now(now));
    }

    /// Whether anybody waits who may be let out; and if so, whether without taking turns.
    pub fn wants(&mut self, now: MonoTime) -> Option<bool> {
        self.release(now);
        let may = !self.queue.is_empty() && self.room(now).more > 0;
        may.then(|| self.queue.express() > 0)
    }

    /// When the store is asked again for those that wait. A no that has run out is no yes.
    pub(super) fn next_question(&self, now: MonoTime) -> Next {
        if self.queue.is_empty() {
            return Next::Idle;
        }
        Next::At(self.rules.no(now).map_or(now, |no| no.again))
    }

    /// Whether any wait for their turn.
    pub fn has_turns(&self) -> bool {
        self.queue.has_turns()
    }

    /// Until when the requests count that are over.
    pub fn releases(&self) -> impl Iterator<Item = MonoTime> {
        self.log.releases()
    }
}
