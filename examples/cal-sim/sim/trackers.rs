//! Who has asked how often: a limiter for each credential, and for each address that sends none.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use calgate::catalog::Endpoint;
use calgate::catalog::endpoint::Segment;
use http::HeaderMap;

use super::limiter::{Limiter, NamedLimit, Verdict};
use super::options::Limits;
use super::presented::Presented;

/// Trackers beyond this are looked through for ones to forget.
const MANY: usize = 10_000;

/// What a request is counted by. A bearer wins over a client id (FACTS §1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Tracker {
    ApiKey(String),
    Token(String),
    Client(String),
    Address(IpAddr),
}

impl Tracker {
    /// The one of a request. The edge in front of Cal.com says where an anonymous request comes from.
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

/// All trackers. An operation with a counter of its own leaves the main one alone.
#[derive(Debug)]
pub(super) struct Trackers {
    limits: Limits,
    counting: Mutex<HashMap<(Tracker, Option<u16>), Counted>>,
    refused: AtomicU64,
}

#[derive(Debug)]
struct Counted {
    limiter: Limiter,
    /// When somebody else's next request with this credential comes.
    next_foreign: Duration,
}

impl Trackers {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, counting: Mutex::default(), refused: AtomicU64::new(0) }
    }

    /// Counts a request.
    pub(super) fn hit(&self, tracker: Tracker, endpoint: Option<&Endpoint>, now: Duration) -> Verdict {
        let apart = endpoint.and_then(|e| Some((e, e.sub_limit?)));
        let foreign = match tracker {
            Tracker::Address(_) => None,
            _ if apart.is_some() => None,
            _ => Duration::from_secs(60).checked_div(self.limits.foreign_per_minute),
        };
        let mut counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        if counting.len() > MANY {
            counting.retain(|_, counted| !counted.limiter.is_forgotten(now));
        }
        let key = (tracker, apart.and_then(|(e, _)| u16::try_from(e.id.index()).ok()));
        let counted = counting.entry(key).or_insert_with_key(|(tracker, _)| {
            let limits = match (apart, tracker) {
                (Some((endpoint, own)), _) => self.named(&[(counter_name(endpoint), own.requests_per_minute)]),
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

    /// Requests refused so far.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// A name for the counter of an operation: the literals of its path.
fn counter_name(endpoint: &Endpoint) -> String {
    let literals = endpoint.template.segments().iter().skip(1).filter_map(|segment| match segment {
        Segment::Literal(text) => Some(text.replace('-', "_")),
        Segment::Parameter(_) => None,
    });
    let mut name = literals.collect::<Vec<_>>().join("_");
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    name
}
