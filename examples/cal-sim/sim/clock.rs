//! Clock of the simulation: real time, plus the time that a test has added.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// Clock that never runs backwards.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    /// Time at `started`, plus all added time.
    base: Mutex<Duration>,
}

impl Clock {
    /// Creates a clock with the real time.
    pub fn new() -> Self {
        let base = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), base: Mutex::new(base) }
    }

    /// Returns the time since 1970.
    pub fn now(&self) -> Duration {
        *self.base.lock() + self.started.elapsed()
    }

    /// Advances the clock.
    pub fn advance(&self, by: Duration) {
        *self.base.lock() += by;
    }
}
