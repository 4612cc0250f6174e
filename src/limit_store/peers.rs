//! Number of gateways on the limit store, from what the store reports for each budget of this gateway.
//!
//! Some budgets are used by this gateway alone, for example that of a managed user. The count is therefore the maximum over
//! all budgets within the last seconds. Each budget with a membership reports at least once in that time.

use std::time::Duration;

use parking_lot::Mutex;

use crate::time::MonoTime;

/// Shortest time for which a report counts. The longest is twice that.
const RETENTION: Duration = Duration::from_secs(1);

/// Counter of gateways.
#[derive(Debug)]
pub struct PeerCount(Mutex<Maxima>);

#[derive(Debug)]
struct Maxima {
    since: MonoTime,
    /// Maximum before `since` and after it.
    gateways: [u32; 2],
}

impl Default for PeerCount {
    fn default() -> Self {
        Self(Mutex::new(Maxima { since: MonoTime::default(), gateways: [1; 2] }))
    }
}

impl PeerCount {
    /// Records the number of gateways that the store reported for one budget.
    pub fn observe(&self, gateways: u32, now: MonoTime) {
        let mut maxima = self.0.lock();
        let [before, latest] = maxima.gateways;
        *maxima = if now.since(maxima.since) >= RETENTION {
            Maxima { since: now, gateways: [latest, gateways] }
        } else {
            Maxima { gateways: [before, latest.max(gateways)], ..*maxima }
        };
    }

    /// Returns the number of gateways, this one included.
    pub fn count(&self) -> u32 {
        let [before, latest] = self.0.lock().gateways;
        before.max(latest).max(1)
    }
}
