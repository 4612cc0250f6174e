//! What takes long, and is done while somebody waits: at most once a second.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Tick;

const INTERVAL_NS: u64 = 1_000_000_000;

/// Tells when something was last done.
#[derive(Debug, Default)]
pub struct Seldom(AtomicU64);

impl Seldom {
    /// Whether it is time to do it again. Of several who ask at once, one is told so.
    pub fn is_due(&self, now: Tick) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let due = last == 0 || now.0.saturating_sub(last) >= INTERVAL_NS;
        due && self.0.compare_exchange(last, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
