//! Number of gateways on the limit store, as the budgets of this gateway hear it.
//!
//! Some hear of this gateway alone, such as that of a managed user. So the most counts that any has heard within the last
//! seconds, each of which has all budgets heard at least once.

use std::time::Duration;

use parking_lot::Mutex;

use crate::time::MonoTime;

/// What was heard counts for so long at least, and at most for twice as long.
const COUNTS: Duration = Duration::from_secs(1);

/// Counts gateways.
#[derive(Debug)]
pub struct Gateways(Mutex<Heard>);

#[derive(Debug)]
struct Heard {
    since: MonoTime,
    /// The most in the time before `since`, and after it.
    most: [u32; 2],
}

impl Default for Gateways {
    fn default() -> Self {
        Self(Mutex::new(Heard { since: MonoTime::default(), most: [1; 2] }))
    }
}

impl Gateways {
    /// A budget has heard of so many.
    pub fn heard(&self, gateways: u32, now: MonoTime) {
        let mut heard = self.0.lock();
        let [before, latest] = heard.most;
        *heard = if now.since(heard.since) >= COUNTS {
            Heard { since: now, most: [latest, gateways] }
        } else {
            Heard { most: [before, latest.max(gateways)], ..*heard }
        };
    }

    /// How many there are, this one included.
    pub fn count(&self) -> u32 {
        let [before, latest] = self.0.lock().most;
        before.max(latest).max(1)
    }
}
