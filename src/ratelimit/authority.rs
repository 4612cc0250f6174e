//! Who decides about requests: this gateway, or the limit store that several gateways share.

use std::time::Duration;

use super::ThrottleReason;
use crate::time::MonoTime;

/// Time for which a denial of the store is cached, 100 ms: other gateways can free capacity sooner than the store expects.
const DENIAL_TTL: Duration = Duration::from_millis(100);

/// Who decides about the requests of a budget.
#[derive(Debug, Clone, Copy, Default)]
pub enum LimitAuthority {
    /// This gateway, by its own log and the windows it tracks.
    #[default]
    Local,
    /// The store decides about every request, except while a denial is cached.
    Store {
        /// Number of gateways whose requests the store decides.
        gateways: u32,
        /// Requests of other clients of the credential in one window, as the store reports.
        external: u32,
        /// Last denial.
        denial: Option<CachedDenial>,
    },
}

/// Cached denial of the store.
#[derive(Debug, Clone, Copy)]
pub struct CachedDenial {
    /// Reason of the denial.
    pub by: ThrottleReason,
    /// When the store is asked again.
    pub again: MonoTime,
    /// When the denial ends, as the store expects.
    pub until: MonoTime,
}

impl CachedDenial {
    /// Caches a denial for `wait`, if the store reports a wait. The store is asked again after up to `jitter` more.
    pub fn new(by: ThrottleReason, wait: Option<Duration>, jitter: Duration, now: MonoTime) -> Self {
        let again = now.after(wait.unwrap_or(DENIAL_TTL).min(DENIAL_TTL) + jitter);
        Self { by, again, until: now.after(wait.unwrap_or_default()) }
    }

    /// Caches a denial of this gateway, for the time until the store has all information that it needs.
    pub fn temporary(wait: Duration, now: MonoTime) -> Self {
        Self { by: ThrottleReason::Requests, again: now.after(wait), until: now.after(wait) }
    }
}

impl LimitAuthority {
    /// Returns the number of gateways among which the limit is divided fairly; `None` if this gateway decides.
    pub fn gateways(&self) -> Option<u32> {
        match self {
            Self::Local => None,
            Self::Store { gateways, .. } => Some(*gateways),
        }
    }

    /// Returns the requests of other clients in one window, as the store reports; `None` if this gateway decides.
    pub fn external(&self) -> Option<u32> {
        match self {
            Self::Local => None,
            Self::Store { external, .. } => Some(*external),
        }
    }

    /// Returns the denial that is in force.
    pub fn denial(&self, now: MonoTime) -> Option<CachedDenial> {
        match self {
            Self::Local => None,
            Self::Store { denial, .. } => denial.filter(|denial| now < denial.again),
        }
    }
}
