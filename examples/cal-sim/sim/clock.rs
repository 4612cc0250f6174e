//! Clock of the simulation: real time, plus the time that a test has added.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// A clock that never runs backwards.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    /// The time at `started`, and all that was added since.
    base: Mutex<Duration>,
}

impl Clock {
    /// A clock that is right.
    pub fn new() -> Self {
        let base = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), base: Mutex::new(base) }
    }

    /// Time since 1970.
    pub fn now(&self) -> Duration {
        *self.base.lock() + self.started.elapsed()
    }

    /// Puts it ahead.
    pub fn advance(&self, by: Duration) {
        *self.base.lock() += by;
    }
}
