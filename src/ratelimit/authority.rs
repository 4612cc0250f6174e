//! Chooses who decides about requests: this gateway, or the limit store that several gateways share.

use std::time::Duration;

use super::ThrottleReason;
use crate::time::MonoTime;

/// A no of the store is believed for so long and no longer; so much can change in it by what others do.
const DENIAL_TTL: Duration = Duration::from_millis(100);

/// By what a budget decides.
#[derive(Debug, Clone, Copy, Default)]
pub enum LimitAuthority {
    /// Its own log and gate.
    #[default]
    Local,
    /// The store's word: every request is put to it, unless it has just said no.
    Store {
        /// Gateways that go by it.
        gateways: u32,
        /// Requests of others on the credential in one window, as it tells.
        external: u32,
        /// Its last no.
        denial: Option<CachedDenial>,
    },
}

/// A no of the store's.
#[derive(Debug, Clone, Copy)]
pub struct CachedDenial {
    /// What holds requests.
    pub by: ThrottleReason,
    /// When it is asked again.
    pub again: MonoTime,
    /// Until when it said that it would be so.
    pub until: MonoTime,
}

impl CachedDenial {
    /// Of a request that is held for `wait`, if that is known. It is asked again a little later, by up to `jitter`.
    pub fn new(by: ThrottleReason, wait: Option<Duration>, jitter: Duration, now: MonoTime) -> Self {
        let again = now.after(wait.unwrap_or(DENIAL_TTL).min(DENIAL_TTL) + jitter);
        Self { by, again, until: now.after(wait.unwrap_or_default()) }
    }

    /// While the store is told what it has to know first.
    pub fn temporary(wait: Duration, now: MonoTime) -> Self {
        Self { by: ThrottleReason::Requests, again: now.after(wait), until: now.after(wait) }
    }
}

impl LimitAuthority {
    /// Gateways among which the limit is divided fairly; `None` where it is not the store that decides.
    pub fn gateways(&self) -> Option<u32> {
        match self {
            Self::Local => None,
            Self::Store { gateways, .. } => Some(*gateways),
        }
    }

    /// Requests of others in one window, as the store tells; `None` where it is not the store that decides.
    pub fn external(&self) -> Option<u32> {
        match self {
            Self::Local => None,
            Self::Store { external, .. } => Some(*external),
        }
    }

    /// The no that is in force.
    pub fn denial(&self, now: MonoTime) -> Option<CachedDenial> {
        match self {
            Self::Local => None,
            Self::Store { denial, .. } => denial.filter(|denial| now < denial.again),
        }
    }
}
