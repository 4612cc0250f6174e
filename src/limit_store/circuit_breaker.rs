//! Circuit breaker in front of the limit store: a state machine that is given the time.
//!
//! Closed, every call goes through. Three failures in a row, or more than one in five within a second, open it: nothing is
//! asked, and one probe after another is made, each a little later than the last. A probe that succeeds leads to
//! recovering: what was sent meanwhile is told to the store, and only when all of it is known there does it close.

use std::time::Duration;

use fastrand::Rng;

use crate::time::MonoTime;

/// Failures in a row that open it.
const IN_A_ROW: u32 = 3;

/// Over this time failures are counted; more than one in `ONE_IN` of at least `ENOUGH` calls opens it.
const WHILE: Duration = Duration::from_secs(1);
const ONE_IN: u32 = 5;
const ENOUGH: u32 = 10;

/// Time to the next probe: the first, and at most.
const PROBE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The store is asked.
    Closed,
    /// It is not, and is probed at that time next.
    Open {
        /// When.
        probe: MonoTime,
    },
    /// It answers again, and is told what it has missed.
    Recovering {
        /// When the probe succeeded.
        since: MonoTime,
    },
}

impl State {
    /// The name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::Recovering { .. } => "recovering",
        }
    }
}

/// The circuit breaker.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    /// Failures in a row.
    failures: u32,
    /// Calls and failures since that time.
    counted: (MonoTime, u32, u32),
    /// Probes that failed in a row.
    probes: u32,
    random: Rng,
}

impl Breaker {
    /// Open, with a probe due at once: nothing is known of the store. `seed` tells its probes apart from those of other gateways.
    pub fn new(now: MonoTime, seed: u64) -> Self {
        let random = Rng::with_seed(seed);
        Self { state: State::Open { probe: now }, failures: 0, counted: (now, 0, 0), probes: 0, random }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// A call succeeded or failed. Answers whether that opened it.
    pub fn called(&mut self, succeeded: bool, now: MonoTime) -> bool {
        if matches!(self.state, State::Open { .. }) {
            return false; // Of a call from before.
        }
        self.failures = if succeeded { 0 } else { self.failures.saturating_add(1) };
        if now.since(self.counted.0) >= WHILE {
            self.counted = (now, 0, 0);
        }
        let (_, calls, failed) = &mut self.counted;
        *calls += 1;
        *failed += u32::from(!succeeded);
        let often = *calls >= ENOUGH && *failed * ONE_IN > *calls;
        let opens = !succeeded && (often || self.failures >= IN_A_ROW);
        if opens {
            self.probes = 0;
            self.open(now);
        }
        opens
    }

    /// A probe that was due has succeeded or failed.
    pub fn probed(&mut self, succeeded: bool, now: MonoTime) {
        if !matches!(self.state, State::Open { .. }) {
            return;
        }
        if succeeded {
            self.state = State::Recovering { since: now };
        } else {
            self.probes = self.probes.saturating_add(1);
            self.open(now);
        }
    }

    /// The store knows all that it has missed.
    pub fn recovered(&mut self) {
        if matches!(self.state, State::Recovering { .. }) {
            self.state = State::Closed;
        }
    }

    /// The next probe: later each time, by half of that at random, so that gateways do not come together.
    fn open(&mut self, now: MonoTime) {
        let (first, most) = PROBE;
        let wait = (first * 2_u32.saturating_pow(self.probes.min(8))).min(most);
        let part = self.random.u32(..1000);
        self.state = State::Open { probe: now.after((wait / 2 + wait * part / 2000).max(first)) };
        self.failures = 0;
        self.counted = (now, 0, 0);
    }
}
