//! Cal.com's windows as its responses report them, including usage by other clients.
//!
//! Each answer tells a limit's count and, in whole seconds, the end of its window (FACTS §2). Within a window the *least*
//! count that was seen holds, as answers overtake each other, and what is in flight may not be part of it yet. A window
//! counts as over after the latest end that is possible by all responses ([`ends`](super::ends) has the rule and its proof);
//! then little goes out until the next answer tells of a new one.
//! That also covers windows that Cal.com prolongs with their old count: the answer to the request that did it says so.

use std::time::Duration;

use smallvec::SmallVec;

use super::ends::{Ends, ROUNDING, Relation};
use super::first_response::FirstResponse;
use super::other_clients::{ExternalUsage, WindowSize, prorate};
use super::replica_share::ReplicaShare;
use super::usage_headers::{LimitReading, MAX_NAMES};
use crate::time::MonoTime;

/// Requests in flight at most while nothing is known of the window.
const MAX_IN_FLIGHT_UNKNOWN: u32 = 4;

/// How long before a window may end several gateways leave alone what is left of it, if it is not much: a request that
/// arrives as it ends could prolong it, and only the gateway that sent it would know. What was last heard is no proof of
/// how much is left, as others may have used the tail since.
const CLOSING_PERIOD: Duration = Duration::from_secs(1);

/// How long before a window may end several gateways give away what they kept of it, in thousandths of a window. Who comes
/// after that and finds nothing left waits for the next window, which takes less than requests usually may wait.
const RELEASE_PERMILLE: u32 = 75;

/// How long others are suspected after a 429.
const SUSPICION_PERIOD: Duration = Duration::from_secs(3600);

/// The gate of one credential, or of one operation that is counted apart.
#[derive(Debug, Default)]
pub struct UpstreamWindows {
    windows: SmallVec<[Window; 1]>,
    /// Whether an answer came before any told of a limit.
    silent: bool,
    first_response: FirstResponse,
    /// What others are taken to use a window, and until when, because there was a 429 that we did not cause.
    suspected: (u32, MonoTime),
}

/// What the gate has to know beside its own state.
#[derive(Debug, Clone, Copy)]
pub struct WindowContext {
    /// The time.
    pub at: MonoTime,
    /// Requests without an answer.
    pub in_flight: u32,
    /// Gateways that share nothing but the credential.
    pub gateways: u32,
    /// N, as far as it is known here.
    pub limit: u32,
    /// How long a whole window is.
    pub window: Duration,
}

/// The window of one named limit, as far as answers told.
#[derive(Debug)]
struct Window {
    name: u64,
    limit: Option<u32>,
    ends: Ends,
    least: u32,
    /// Our requests that were counted in it, as far as answers told.
    own: u32,
    /// Those of them that were in its tail.
    tail: u32,
    external: ExternalUsage,
}

/// How many more requests may go out, and until when that stays so by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headroom {
    /// Requests beside those in flight.
    pub more: u32,
    /// When it changes without an answer, if it does.
    pub until: Option<MonoTime>,
}

/// How those that take turns go about what is left, the loosest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pacing {
    /// All at once: the window is about to end.
    Immediate,
    /// One in each such time, with which what is left just lasts.
    Every(Duration),
    /// None before then: what is left will be used by those that need not take turns.
    NotBefore(MonoTime),
}

impl UpstreamWindows {
    /// Has the first answer come before a burst.
    pub fn await_first_response(&mut self) {
        self.first_response.is_followed = true;
    }

    /// A request goes out.
    pub fn record_start(&mut self, now: MonoTime) {
        if self.first_response.is_restored || (self.windows.is_empty() && !self.silent) {
            self.first_response.record_start(now);
        }
    }

    /// A request that was sent at `sent` is over.
    pub fn record_end(&mut self, sent: MonoTime) {
        self.first_response.record_end(sent);
    }

    /// Notes what the answer to a request that was sent at `sent` told.
    pub fn observe(&mut self, told: &[LimitReading], sent: MonoTime, now: WindowContext) {
        if told.is_empty() && self.windows.is_empty() {
            self.silent = true;
        }
        let suspected = self.suspected(now.at);
        if !told.is_empty() {
            // An answer has all names of the credential: what it lacks is no limit of it any more.
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
            // What is counted beside what was recorded, the process before this one has sent.
            self.expect_others(0);
        }
    }

    /// The store tells of windows, as other gateways' responses told of them.
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

    /// There are more gateways now, or fewer: which requests of its own were in the tail is no longer known, so all count, nor which of
    /// the others were other gateways'.
    pub fn gateways_changed(&mut self) {
        for window in &mut self.windows {
            window.tail = window.own;
            window.external = window.external.reset(window.least, window.external.expected());
        }
    }

    /// While other gateways' answers were heard of, they could not be told from others, of which there are `expected`.
    pub fn expect_others(&mut self, expected: u32) {
        for window in &mut self.windows {
            window.external = window.external.reset(window.least, expected);
        }
    }

    /// A request is over and nothing is known of it: it may have been counted.
    pub fn mark_lost(&mut self) {
        for window in &mut self.windows {
            window.external.count_own();
            window.least = window.least.saturating_sub(1);
            window.own = window.own.saturating_add(1);
            window.tail = window.tail.saturating_add(1);
        }
    }

    /// A 429 came although nothing here had exceeded `limit`: somebody else has. For an hour, others are taken to use a
    /// third of it more than was thought, though no more than half.
    pub fn suspect_others(&mut self, limit: u32, now: MonoTime) {
        let before = self.suspected(now);
        self.suspected = (before.saturating_add(limit / 3).min(limit / 2), now.after(SUSPICION_PERIOD));
    }

    fn suspected(&self, now: MonoTime) -> u32 {
        let (suspected, until) = self.suspected;
        if now < until { suspected } else { 0 }
    }

    /// How many more may go out beside those in flight. Cal.com refuses only what exceeds all of a credential's limits
    /// (FACTS §2), so the widest counts.
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

    /// The windows that are open: what is left of each when what is in flight has been counted, and until when at most.
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

    /// A process before this one has recorded an open window. It may have sent more since.
    pub fn restore(&mut self, seen: &LimitReading, now: WindowContext) {
        self.first_response.is_restored |= self.windows.is_empty();
        let latest = now.at.after(seen.reset);
        self.merge_peer_report(&[(*seen, Ends { earliest: latest.before(ROUNDING * 2), latest })], now);
    }

    /// How those take turns who have to, where in a whole window this gateway lets out `light` requests that need not;
    /// `None` where nothing is known.
    pub fn pacing(&self, now: WindowContext, light: u32) -> Option<Pacing> {
        let known = self.windows.iter().filter(|window| now.at <= window.ends.latest);
        known.map(|window| window.pacing(now, self.suspected(now.at), light)).min()
    }

    /// Whether answers come without any word of limits.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// The count that Cal.com last told of the window that is open, the widest of several.
    pub fn remaining(&self, now: MonoTime) -> Option<u32> {
        self.windows.iter().filter(|window| now <= window.ends.latest).map(|window| window.least).max()
    }

    /// Requests of others on the same credential in one window: seen, where this gateway is `alone`, or suspected.
    pub fn external_usage(&self, now: MonoTime, alone: bool) -> u32 {
        let seen = self.windows.iter().filter(|_| alone).map(|window| window.external.seen()).max();
        seen.unwrap_or(0).max(self.suspected(now))
    }

    /// The widest limit that answers tell of.
    pub fn limit(&self) -> Option<u32> {
        self.windows.iter().filter_map(|window| window.limit).max()
    }
}

impl Window {
    fn new(seen: &LimitReading, sent: MonoTime, now: WindowContext, suspected: u32) -> Self {
        Self::after(ExternalUsage::new(seen.remaining, sent, now.at), seen, sent, now, suspected)
    }

    /// A window that is new to us, with what is known of others.
    fn after(external: ExternalUsage, seen: &LimitReading, sent: MonoTime, now: WindowContext, suspected: u32) -> Self {
        let (name, limit, ends) = (seen.name, seen.limit, Ends::of_response(seen, sent, now.at, now.window));
        let mut window = Self { name, limit, ends, least: seen.remaining, own: 0, tail: 0, external };
        window.note_tail(seen, now, suspected);
        window
    }

    /// A window that only others have told of.
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

    /// This gateway's part of the window, where there are others. It depends on nothing that another gateway may know otherwise.
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
        // Another limit has another tail. Which requests were in that is not known, so all count as such.
        if seen.limit.is_some_and(|limit| self.limit != Some(limit)) {
            (self.limit, self.tail) = (seen.limit, self.own);
        }
        // Where it may belong to either of two windows, it counts in both.
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

    /// What is left to us, in flight or not.
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

    /// From when on a request might arrive as the window ends, and prolong it. A gateway alone would be told at once, so it
    /// cares only where it knows the end well enough for that to cost next to nothing, or where others would not be told.
    fn closing(&self, now: WindowContext) -> MonoTime {
        let Ends { earliest, latest } = self.ends;
        if !now.is_alone() {
            return earliest.before(CLOSING_PERIOD);
        }
        let is_known = latest.since(earliest) < ROUNDING || self.external.seen() > 0;
        if is_known { earliest.before(now.window / 240) } else { latest }
    }

    /// Whether a further window with what is left of this one would be a hardship.
    fn is_short(&self) -> bool {
        self.limit.is_some_and(|limit| self.least < limit / 2)
    }

    /// Where several gateways use a window, those that need not take turns are kept what they will ask for, and the tail,
    /// until shortly before the end; unless more is left than an even use of the window would leave.
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

    /// Requests in flight at most while no response has told of a window.
    fn unknown(&self) -> u32 {
        ReplicaShare::of(self.gateways, self.limit)
            .map_or(MAX_IN_FLIGHT_UNKNOWN, |share| MAX_IN_FLIGHT_UNKNOWN.min(share.own))
    }
}
