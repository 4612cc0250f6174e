//! Rate limiters by credential, and by address for requests without one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use calgate::catalog::Endpoint;
use http::HeaderMap;
use parking_lot::Mutex;

use super::limiter::{Limiter, NamedLimit, Verdict};
use super::options::Limits;
use super::presented::Presented;

/// Number of trackers above which idle ones are removed.
const MANY: usize = 10_000;

/// Key by which a request is counted. A bearer token takes precedence over a client id (FACTS §1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Tracker {
    ApiKey(String),
    Token(String),
    Client(String),
    Address(IpAddr),
}

impl Tracker {
    /// Returns the tracker of a request. The edge in front of Cal.com reports the address of an anonymous request.
    pub(super) fn of(headers: &HeaderMap, peer: IpAddr) -> Self {
        let presented = Presented::of(headers);
        if let Some(bearer) = presented.bearer {
            return if bearer.starts_with("cal_") { Self::ApiKey(bearer) } else { Self::Token(bearer) };
        }
        if let Some(id) = presented.client_id {
            return Self::Client(id);
        }
        let told = headers.get("cf-connecting-ip").and_then(|value| value.to_str().ok()?.parse().ok());
        Self::Address(told.unwrap_or(peer))
    }
}

/// All trackers. An operation with a separate counter does not count in the main one.
#[derive(Debug)]
pub(super) struct Trackers {
    limits: Limits,
    /// API keys with the limits of `limits.api_key`. Others were created later.
    first_keys: Vec<String>,
    counting: Mutex<HashMap<(Tracker, Option<String>), Counted>>,
    refused: AtomicU64,
}

#[derive(Debug)]
struct Counted {
    limiter: Limiter,
    /// Time of the next request of the other client with this credential.
    next_foreign: Duration,
}

impl Trackers {
    pub(super) fn new(limits: Limits, first_keys: Vec<String>) -> Self {
        Self { limits, first_keys, counting: Mutex::default(), refused: AtomicU64::new(0) }
    }

    /// Counts a request.
    pub(super) fn hit(&self, tracker: Tracker, endpoint: Option<&Endpoint>, now: Duration) -> Verdict {
        let is_counted = !self.limits.api_key.is_empty();
        let of = |endpoint: &Endpoint| self.limits.operations.iter().find(|limit| limit.is_of(endpoint));
        let apart = endpoint.filter(|_| is_counted).and_then(of);
        let foreign = match tracker {
            Tracker::Address(_) => None,
            _ if apart.is_some() => None,
            _ => Duration::from_secs(60).checked_div(self.limits.foreign_per_minute),
        };
        let mut counting = self.counting.lock();
        if counting.len() > MANY {
            counting.retain(|_, counted| !counted.limiter.is_forgotten(now));
        }
        let key = (tracker, apart.map(|own| own.name.clone()));
        let counted = counting.entry(key).or_insert_with_key(|(tracker, _)| {
            let limits = match (apart, tracker) {
                (Some(own), _) => self.named(&[(own.name.clone(), own.limit)]),
                (None, Tracker::ApiKey(key)) if is_counted && !self.first_keys.contains(key) => {
                    self.named(&self.limits.new_api_key)
                }
                (None, Tracker::ApiKey(_) | Tracker::Address(_)) => self.named(&self.limits.api_key),
                (None, Tracker::Token(_) | Tracker::Client(_)) => self.named(&self.limits.other),
            };
            Counted { limiter: Limiter::new(limits, self.limits.quirk), next_foreign: now }
        });
        while let Some(apart) = foreign.filter(|_| counted.next_foreign < now) {
            counted.limiter.hit(counted.next_foreign);
            counted.next_foreign += apart;
        }
        let verdict = counted.limiter.hit(now);
        self.refused.fetch_add(u64::from(verdict.refused), Ordering::Relaxed);
        verdict
    }

    fn named(&self, limits: &[(String, u32)]) -> Vec<NamedLimit> {
        let Limits { window, block, .. } = self.limits;
        limits.iter().map(|(name, limit)| NamedLimit { name: name.clone(), limit: *limit, window, block }).collect()
    }

    /// Returns the number of refused requests so far.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}
