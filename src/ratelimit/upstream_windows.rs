//! Cal.com's windows as its responses report them, including usage by other clients.
//!
//! Each response reports the count of a limit and, in whole seconds, the end of its window (FACTS §2). Within a window the
//! *least* remaining count holds, because responses overtake each other and may not include requests in flight. A window counts
//! as over after the latest end that all responses allow ([`ends`](super::ends) has the rule and its proof). After that, few
//! requests are sent until a response reports a new window. If Cal.com prolonged a window with its old count, the response to the
//! request that caused it says so.

use std::time::Duration;

use smallvec::SmallVec;

use super::ends::{Ends, ROUNDING, Relation};
use super::first_response::FirstResponse;
use super::headroom::{Headroom, Pacing};
use super::other_clients::{ExternalUsage, WindowSize, prorate};
use super::replica_share::ReplicaShare;
use super::usage_headers::{LimitReading, MAX_NAMES};
use crate::time::MonoTime;

/// Maximum requests in flight while the window is unknown.
const MAX_IN_FLIGHT_UNKNOWN: u32 = 4;

/// Time before the possible end of a window, 1 s, in which several gateways leave a small rest of it unused. A request that
/// arrives at the end could prolong the window unseen by the others, and the last report does not prove how much is left.
const CLOSING_PERIOD: Duration = Duration::from_secs(1);

/// Time before the possible end of a window, in thousandths of a window, at which several gateways release the capacity kept for
/// express requests. A later request that finds none waits for the next window, within the usual `max_wait`.
const RELEASE_PERMILLE: u32 = 75;

/// Time for which unknown clients are suspected after a 429.
const SUSPICION_PERIOD: Duration = Duration::from_secs(3600);

/// Windows of one credential, or of one operation that Cal.com counts separately.
#[derive(Debug, Default)]
pub struct UpstreamWindows {
    windows: SmallVec<[Window; 1]>,
    /// Whether a response came before any reported a limit.
    silent: bool,
    first_response: FirstResponse,
    /// Suspected usage per window by others, and until when, after a 429 that this gateway did not cause.
    suspected: (u32, MonoTime),
}

/// Context of a decision.
#[derive(Debug, Clone, Copy)]
pub struct WindowContext {
    /// Time.
    pub at: MonoTime,
    /// Requests without a response.
    pub in_flight: u32,
    /// Number of gateways that share nothing but the credential.
    pub gateways: u32,
    /// N, as far as it is known here.
    pub limit: u32,
    /// Length of a window.
    pub window: Duration,
}

/// Window of one named limit, as responses report it.
#[derive(Debug)]
struct Window {
    name: u64,
    limit: Option<u32>,
    ends: Ends,
    least: u32,
    /// Our requests that the window counts, as responses report them.
    own: u32,
    /// Those of them in its tail.
    tail: u32,
    external: ExternalUsage,
}

impl UpstreamWindows {
    /// Sends no burst before the first response.
    pub fn await_first_response(&mut self) {
        self.first_response.is_followed = true;
    }

    /// Records that a request is sent.
    pub fn record_start(&mut self, now: MonoTime) {
        if self.first_response.is_restored || (self.windows.is_empty() && !self.silent) {
            self.first_response.record_start(now);
        }
    }

    /// Records the end of a request that was sent at `sent`.
    pub fn record_end(&mut self, sent: MonoTime) {
        self.first_response.record_end(sent);
    }

    /// Records the limits in the response to a request that was sent at `sent`.
    pub fn observe(&mut self, told: &[LimitReading], sent: MonoTime, now: WindowContext) {
        if told.is_empty() && self.windows.is_empty() {
            self.silent = true;
        }
        let suspected = self.suspected(now.at);
        if !told.is_empty() {
            // A response has all limit names of the credential. A name that it lacks is no limit any more.
            self.windows.retain(|window| told.iter().any(|seen| seen.name == window.name));
        }
        for seen in told {
            self.silent = false;
            if let Some(window) = self.windows.iter_mut().find(|window| window.name == seen.name) {
                window.note(seen, sent, now, suspected);
            } else if self.windows.len() < MAX_NAMES {
                self.windows.push(Window::new(seen, sent, now, suspected));
            }
        }
        if self.first_response.is_restored && !told.is_empty() {
            self.first_response.is_restored = false;
            // Requests that are counted in addition to the record are those of the earlier process.
            self.expect_others(0);
        }
    }

    /// Merges the windows that the store knows from the responses to other gateways.
    pub fn merge_peer_report(&mut self, told: &[(LimitReading, Ends)], now: WindowContext) {
        for (seen, ends) in told {
            let has_room = self.windows.len() < MAX_NAMES;
            match self.windows.iter_mut().find(|window| window.name == seen.name) {
                Some(window) => window.merge_peer_report(seen, *ends, now),
                None if has_room => {
                    let external = ExternalUsage::new(seen.remaining, now.at, now.at);
                    self.windows.push(Window::of_peer(seen, *ends, external));
                }
                None => {}
            }
        }
    }

    /// Applies a change of the number of gateways: all its own requests count as requests in the tail, and others are observed
    /// anew.
    pub fn gateways_changed(&mut self) {
        for window in &mut self.windows {
            window.tail = window.own;
            window.external = window.external.reset(window.least, window.external.expected());
        }
    }

    /// Restarts the observation of other clients with `expected` requests per window, because reports of other gateways were
    /// included.
    pub fn expect_others(&mut self, expected: u32) {
        for window in &mut self.windows {
            window.external = window.external.reset(window.least, expected);
        }
    }

    /// Records a request with an unknown outcome: a window may have counted it.
    pub fn mark_lost(&mut self) {
        for window in &mut self.windows {
            window.external.count_own();
            window.least = window.least.saturating_sub(1);
            window.own = window.own.saturating_add(1);
            window.tail = window.tail.saturating_add(1);
        }
    }

    /// Records a 429 that another client caused, because nothing here had exceeded `limit`. For an hour, the suspected usage is a
    /// third of the limit higher, and at most half of it.
    pub fn suspect_others(&mut self, limit: u32, now: MonoTime) {
        let before = self.suspected(now);
        self.suspected = (before.saturating_add(limit / 3).min(limit / 2), now.after(SUSPICION_PERIOD));
    }

    fn suspected(&self, now: MonoTime) -> u32 {
        let (suspected, until) = self.suspected;
        if now < until { suspected } else { 0 }
    }

    /// Returns how many requests may be sent in addition to those in flight. Cal.com refuses only a request that exceeds all
    /// limits of a credential (FACTS §2), so the widest limit counts.
    pub fn headroom(&self, now: WindowContext) -> Headroom {
        if self.windows.is_empty() {
            let (most, until) =
                if self.silent { (u32::MAX, None) } else { self.first_response.cap(now.unknown(), now.at) };
            return Headroom { more: most.saturating_sub(now.in_flight), until };
        }
        let rooms = self.windows.iter().map(|window| window.headroom(now, self.suspected(now.at)));
        let room = rooms.max_by_key(|room| room.more).unwrap_or(Headroom { more: 0, until: None });
        if self.first_response.is_restored {
            let (most, until) = self.first_response.cap(now.unknown(), now.at);
            let more = most.saturating_sub(now.in_flight);
            return if more < room.more { Headroom { more, until } } else { room };
        }
        room
    }

    /// Returns the open windows: what is left of each after the requests in flight, and the latest possible end.
    pub fn open_windows(&self, now: WindowContext) -> Vec<LimitReading> {
        let open = self.windows.iter().filter(|window| now.at < window.ends.latest);
        let seen = |window: &Window| LimitReading {
            name: window.name,
            limit: window.limit,
            remaining: window.least.saturating_sub(now.in_flight),
            reset: window.ends.latest.since(now.at),
        };
        open.map(seen).collect()
    }

    /// Restores an open window that an earlier process recorded. That process may have sent more since.
    pub fn restore(&mut self, seen: &LimitReading, now: WindowContext) {
        self.first_response.is_restored |= self.windows.is_empty();
        let latest = now.at.after(seen.reset);
        self.merge_peer_report(&[(*seen, Ends { earliest: latest.before(ROUNDING * 2), latest })], now);
    }

    /// Returns the pacing of requests that take turns; `None` if no window is known. `light` is the number of express requests of
    /// this gateway in a whole window.
    pub fn pacing(&self, now: WindowContext, light: u32) -> Option<Pacing> {
        let known = self.windows.iter().filter(|window| now.at <= window.ends.latest);
        known.map(|window| window.pacing(now, self.suspected(now.at), light)).min()
    }

    /// Returns whether responses report no limits.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// Returns the remaining count of the open window, and of several the widest.
    pub fn remaining(&self, now: MonoTime) -> Option<u32> {
        self.windows.iter().filter(|window| now <= window.ends.latest).map(|window| window.least).max()
    }

    /// Returns the requests of other clients in one window: the observed ones if this gateway is `alone`, or the suspected ones.
    pub fn external_usage(&self, now: MonoTime, alone: bool) -> u32 {
        let seen = self.windows.iter().filter(|_| alone).map(|window| window.external.seen()).max();
        seen.unwrap_or(0).max(self.suspected(now))
    }

    /// Returns the widest limit that responses report.
    pub fn limit(&self) -> Option<u32> {
        self.windows.iter().filter_map(|window| window.limit).max()
    }
}

impl Window {
    fn new(seen: &LimitReading, sent: MonoTime, now: WindowContext, suspected: u32) -> Self {
        Self::after(ExternalUsage::new(seen.remaining, sent, now.at), seen, sent, now, suspected)
    }

    /// Creates a window that is new to this gateway, with the known usage of others.
    fn after(external: ExternalUsage, seen: &LimitReading, sent: MonoTime, now: WindowContext, suspected: u32) -> Self {
        let (name, limit, ends) = (seen.name, seen.limit, Ends::of_response(seen, sent, now.at, now.window));
        let mut window = Self { name, limit, ends, least: seen.remaining, own: 0, tail: 0, external };
        window.note_tail(seen, now, suspected);
        window
    }

    /// Creates a window that only other gateways have reported.
    fn of_peer(seen: &LimitReading, ends: Ends, external: ExternalUsage) -> Self {
        Self { name: seen.name, limit: seen.limit, ends, least: seen.remaining, own: 0, tail: 0, external }
    }

    fn merge_peer_report(&mut self, seen: &LimitReading, ends: Ends, now: WindowContext) {
        match self.ends.note(ends, now.at, now.window) {
            Relation::Over => {}
            Relation::Open => self.least = self.least.min(seen.remaining),
            Relation::Next => *self = Self::of_peer(seen, ends, self.external_of_next(seen, now.at, now)),
        }
    }

    fn external_of_next(&self, seen: &LimitReading, sent: MonoTime, now: WindowContext) -> ExternalUsage {
        self.external.next_window(seen.remaining, (sent, now.at), self.whole(now), now.is_alone())
    }

    /// Returns this gateway's share of the window, if there are others. It depends only on values that all gateways know alike.
    fn share(&self, now: WindowContext) -> Option<ReplicaShare> {
        ReplicaShare::of(now.gateways, self.limit.unwrap_or(1))
    }

    fn whole(&self, now: WindowContext) -> WindowSize {
        WindowSize { length: now.window, limit: self.limit.unwrap_or(u32::MAX) }
    }

    fn note(&mut self, seen: &LimitReading, sent: MonoTime, now: WindowContext, suspected: u32) {
        match self.ends.note(Ends::of_response(seen, sent, now.at, now.window), now.at, now.window) {
            Relation::Over => return,
            Relation::Open => {}
            Relation::Next => {
                *self = Self::after(self.external_of_next(seen, sent, now), seen, sent, now, suspected);
                return;
            }
        }
        // Another limit has another tail. It is unknown which requests were in it, so all count as such.
        if seen.limit.is_some_and(|limit| self.limit != Some(limit)) {
            (self.limit, self.tail) = (seen.limit, self.own);
        }
        // A response that may be about either of two windows counts in both.
        self.least = self.least.min(seen.remaining);
        self.note_tail(seen, now, suspected);
        self.external.count_own();
        self.external.observe(self.least, now.in_flight, sent);
    }

    fn note_tail(&mut self, seen: &LimitReading, now: WindowContext, suspected: u32) {
        let left = seen.remaining.saturating_sub(self.reserve(now, suspected));
        self.own = self.own.saturating_add(1);
        let is_tail = self.share(now).is_some_and(|share| left < share.tail());
        self.tail = self.tail.saturating_add(is_tail.into());
    }

    fn reserve(&self, now: WindowContext, suspected: u32) -> u32 {
        self.external.reserved_for_others(now.at, self.ends.latest, self.whole(now), suspected, now.is_alone())
    }

    /// Returns what is left for this gateway, in flight or not.
    fn left(&self, now: WindowContext, suspected: u32) -> u32 {
        self.least.saturating_sub(self.reserve(now, suspected))
    }

    fn headroom(&self, now: WindowContext, suspected: u32) -> Headroom {
        let (share, latest) = (self.share(now), self.ends.latest);
        if now.at > latest {
            let own = share.map_or(u32::MAX, |share| share.own);
            return Headroom { more: MAX_IN_FLIGHT_UNKNOWN.min(own).saturating_sub(now.in_flight), until: None };
        }
        let left = self.left(now, suspected);
        let more = left.saturating_sub(now.in_flight);
        let more = match share {
            _ if now.at >= self.closing(now) && self.is_short() => 0,
            None => more,
            Some(share) if left > share.tail() => more.min(share.own.saturating_sub(now.in_flight)),
            Some(_) if now.at >= self.closing(now) => 0,
            Some(share) => more.min(share.own.saturating_sub(self.tail.saturating_add(now.in_flight))),
        };
        Headroom { more, until: Some(latest) }
    }

    /// Returns from when on a request might arrive as the window ends, and prolong it. A single gateway learns of that at once.
    /// It pauses only if the pause is short, because it knows the end well, or if other clients use the credential.
    fn closing(&self, now: WindowContext) -> MonoTime {
        let Ends { earliest, latest } = self.ends;
        if !now.is_alone() {
            return earliest.before(CLOSING_PERIOD);
        }
        let is_known = latest.since(earliest) < ROUNDING || self.external.seen() > 0;
        if is_known { earliest.before(now.window / 240) } else { latest }
    }

    /// Returns whether a second window with this rest would be too little.
    fn is_short(&self) -> bool {
        self.limit.is_some_and(|limit| self.least < limit / 2)
    }

    /// With several gateways on a window, keeps the tail and the expected express requests free until shortly before the end. It
    /// does not if more is left than an even use of the window would leave.
    fn pacing(&self, now: WindowContext, suspected: u32, light: u32) -> Pacing {
        let more = self.left(now, suspected).saturating_sub(now.in_flight);
        let closing = self.closing(now).since(now.at);
        let Some(share) = self.share(now) else { return Pacing::Every(closing / more.saturating_add(1)) };
        let given_away = self.ends.latest.before(now.window * RELEASE_PERMILLE / 1000);
        if now.at >= given_away {
            return Pacing::Immediate;
        }
        let rest = self.ends.latest.since(now.at);
        let expected = prorate(light.saturating_mul(share.gateways), rest, now.window);
        let even = prorate(self.limit.unwrap_or(u32::MAX).saturating_sub(share.tail()), rest, now.window);
        let is_ahead = more > even.saturating_add(share.tail());
        let wanted = expected.saturating_add(expected.isqrt()).saturating_add(share.tail());
        let kept = if is_ahead { 0 } else { wanted };
        match more.saturating_sub(kept) {
            0 if light > 0 => Pacing::NotBefore(given_away),
            more => Pacing::Every(closing * share.gateways / more.saturating_add(share.gateways)),
        }
    }
}

impl WindowContext {
    fn is_alone(&self) -> bool {
        self.gateways <= 1
    }

    /// Returns the maximum requests in flight while no response has reported a window.
    fn unknown(&self) -> u32 {
        ReplicaShare::of(self.gateways, self.limit)
            .map_or(MAX_IN_FLIGHT_UNKNOWN, |share| MAX_IN_FLIGHT_UNKNOWN.min(share.own))
    }
}
