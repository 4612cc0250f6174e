//! Circuit breaker in front of the limit store: a state machine that is given the time.
//!
//! While it is closed, all calls go through. Three consecutive failures open it, and so does a ratio of more than one in
//! five within a second. While it is open, no call goes through, and the supervisor probes the store with a growing
//! back-off. After a successful probe it is recovering: gateways replay their requests. Then it closes.

use std::time::Duration;

use fastrand::Rng;

use crate::time::MonoTime;

/// Number of consecutive failures that open the breaker.
const MAX_CONSECUTIVE_FAILURES: u32 = 3;

/// Time over which calls and failures are counted. More than one failure in `FAILURE_RATIO` of at least `MIN_CALLS` calls
/// opens the breaker.
const FAILURE_WINDOW: Duration = Duration::from_secs(1);
const FAILURE_RATIO: u32 = 5;
const MIN_CALLS: u32 = 10;

/// First and longest back-off between probes.
const PROBE_BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

/// State of the circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// The store decides.
    Closed,
    /// The store is unavailable.
    Open {
        /// Time of the next probe.
        probe: MonoTime,
    },
    /// The store replies again, and gateways replay their requests.
    Recovering {
        /// Time of the successful probe.
        since: MonoTime,
    },
}

impl BreakerState {
    /// Returns the name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::Recovering { .. } => "recovering",
        }
    }
}

/// Circuit breaker.
#[derive(Debug)]
pub struct CircuitBreaker {
    state: BreakerState,
    consecutive_failures: u32,
    /// Start of the failure window, and the calls and failures in it.
    counted: (MonoTime, u32, u32),
    failed_probes: u32,
    random: Rng,
}

impl CircuitBreaker {
    /// Creates an open breaker whose first probe is due now. `seed` makes its probe times differ from those of other gateways.
    pub fn new(now: MonoTime, seed: u64) -> Self {
        let (state, random) = (BreakerState::Open { probe: now }, Rng::with_seed(seed));
        Self { state, consecutive_failures: 0, counted: (now, 0, 0), failed_probes: 0, random }
    }

    /// Returns the state.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// Records a call. Returns whether that opened the breaker.
    pub fn record_call(&mut self, succeeded: bool, now: MonoTime) -> bool {
        if matches!(self.state, BreakerState::Open { .. }) {
            return false; // The call began before the breaker opened.
        }
        self.consecutive_failures = if succeeded { 0 } else { self.consecutive_failures.saturating_add(1) };
        if now.since(self.counted.0) >= FAILURE_WINDOW {
            self.counted = (now, 0, 0);
        }
        let (_, calls, failures) = &mut self.counted;
        *calls += 1;
        *failures += u32::from(!succeeded);
        let is_ratio_exceeded = *calls >= MIN_CALLS && *failures * FAILURE_RATIO > *calls;
        let opens = !succeeded && (is_ratio_exceeded || self.consecutive_failures >= MAX_CONSECUTIVE_FAILURES);
        if opens {
            self.failed_probes = 0;
            self.open(now);
        }
        opens
    }

    /// Records a probe that was due.
    pub fn record_probe(&mut self, succeeded: bool, now: MonoTime) {
        if !matches!(self.state, BreakerState::Open { .. }) {
            return;
        }
        if succeeded {
            self.state = BreakerState::Recovering { since: now };
        } else {
            self.failed_probes = self.failed_probes.saturating_add(1);
            self.open(now);
        }
    }

    /// Closes the breaker when the time for replays has passed.
    pub fn close(&mut self) {
        if matches!(self.state, BreakerState::Recovering { .. }) {
            self.state = BreakerState::Closed;
        }
    }

    /// Sets the time of the next probe. Half of the back-off is random, so that gateways do not probe at the same moment.
    fn open(&mut self, now: MonoTime) {
        let (first, longest) = PROBE_BACKOFF;
        let wait = (first * 2_u32.saturating_pow(self.failed_probes.min(8))).min(longest);
        let part = self.random.u32(..1000);
        self.state = BreakerState::Open { probe: now.after((wait / 2 + wait * part / 2000).max(first)) };
        self.consecutive_failures = 0;
        self.counted = (now, 0, 0);
    }
}
