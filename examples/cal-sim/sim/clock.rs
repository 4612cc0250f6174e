//! What time it is in the simulated Cal.com: real time, and what a test has added.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) + self.started.elapsed()
    }

    /// Puts it ahead.
    pub fn advance(&self, by: Duration) {
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}
