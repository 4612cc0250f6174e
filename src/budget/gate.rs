//! What Cal.com itself says is left: the gate that sees other users of the same credential.
//!
//! Each answer tells a limit's count and, in whole seconds, the end of its window (FACTS §2). Within a window the *least*
//! count that was seen holds, as answers overtake each other, and what is in flight may not be part of it yet. A window
//! counts as over a second after the end that was told; then little goes out until the next answer tells of a new one.
//! That also covers windows that Cal.com prolongs with their old count: the answer to the request that did it says so.

use std::time::Duration;

use smallvec::SmallVec;

use super::foreign::Foreign;
use super::headers::{MOST_NAMES, Seen};
use super::replicas::Share;
use crate::limit::Tick;

/// Requests in flight at most while nothing is known of the window.
const UNKNOWN: u32 = 4;

/// Ends of windows are told in whole seconds: they are that much later, or earlier, at most.
const ROUNDING: Duration = Duration::from_secs(1);

/// How long before a window may end several gateways leave its tail alone. A request that arrives as it ends could prolong it,
/// and only the gateway that sent it would know.
const CLOSING: Duration = Duration::from_secs(1);

/// The gate of one credential, or of one operation that is counted apart.
#[derive(Debug, Default)]
pub struct Gate {
    windows: SmallVec<[Window; 1]>,
    /// Whether an answer came before any told of a limit.
    silent: bool,
}

/// The window of one named limit, as far as answers told.
#[derive(Debug)]
struct Window {
    name: u64,
    limit: Option<u32>,
    /// The window ends between these two.
    ends: (Tick, Tick),
    least: u32,
    /// Answers that came from the window's tail.
    tail: u32,
    foreign: Foreign,
}

/// How many more requests may go out, and until when that stays so by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Requests beside those in flight.
    pub more: u32,
    /// When it changes without an answer, if it does.
    pub until: Option<Tick>,
}

impl Gate {
    /// Notes what the answer to a request that was sent at `sent` told; `in_flight` are others without an answer.
    pub fn answered(&mut self, told: &[Seen], sent: Tick, now: Tick, in_flight: u32, share: Option<Share>) {
        if told.is_empty() && self.windows.is_empty() {
            self.silent = true;
        }
        for seen in told {
            self.silent = false;
            if let Some(window) = self.windows.iter_mut().find(|window| window.name == seen.name) {
                window.note(seen, sent, now, in_flight, share);
            } else if self.windows.len() < MOST_NAMES {
                self.windows.push(Window::new(seen, sent, now, share));
            }
        }
    }

    /// A request is over and nothing is known of it: it may have been counted.
    pub fn lost(&mut self) {
        self.windows.iter_mut().for_each(|window| window.foreign.own());
    }

    /// How many more may go out beside those in flight. Cal.com refuses only what exceeds all of a credential's limits
    /// (FACTS §2), so the widest counts. `length` is that of a whole window.
    pub fn room(&self, now: Tick, in_flight: u32, share: Option<Share>, length: Duration) -> Room {
        let own = share.map_or(u32::MAX, |share| share.own);
        if self.windows.is_empty() {
            let most = if self.silent { u32::MAX } else { UNKNOWN.min(own) };
            return Room { more: most.saturating_sub(in_flight), until: None };
        }
        let rooms = self.windows.iter().map(|window| window.room(now, in_flight, share, length));
        rooms.max_by_key(|room| room.more).unwrap_or(Room { more: 0, until: None })
    }

    /// The time between requests with which what is left just lasts; `None` where nothing is known.
    pub fn pace(&self, now: Tick, in_flight: u32, share: Option<Share>, length: Duration) -> Option<Duration> {
        let known = self.windows.iter().filter(|window| now <= window.ends.1);
        known.map(|window| window.pace(now, in_flight, share, length)).min()
    }

    /// Whether answers come without any word of limits.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// The count that Cal.com last told of the window that is open, the widest of several.
    pub fn remaining(&self, now: Tick) -> Option<u32> {
        self.windows.iter().filter(|window| now <= window.ends.1).map(|window| window.least).max()
    }

    /// Requests of others on the same credential, in the window that was last heard of.
    pub fn foreign(&self) -> u32 {
        self.windows.iter().map(|window| window.foreign.seen()).max().unwrap_or(0)
    }

    /// The widest limit that answers tell of.
    pub fn limit(&self) -> Option<u32> {
        self.windows.iter().filter_map(|window| window.limit).max()
    }
}

/// Between when and when a window ends, by what one answer told.
fn ends(seen: &Seen, sent: Tick, now: Tick) -> (Tick, Tick) {
    (sent.after(seen.reset).before(ROUNDING), now.after(seen.reset).after(ROUNDING))
}

impl Window {
    fn new(seen: &Seen, sent: Tick, now: Tick, share: Option<Share>) -> Self {
        Self {
            name: seen.name,
            limit: seen.limit,
            ends: ends(seen, sent, now),
            least: seen.remaining,
            tail: u32::from(in_tail(seen, share)),
            foreign: Foreign::new(seen.remaining, now),
        }
    }

    fn note(&mut self, seen: &Seen, sent: Tick, now: Tick, in_flight: u32, share: Option<Share>) {
        self.limit = seen.limit.or(self.limit);
        let (earliest, latest) = ends(seen, sent, now);
        if latest < self.ends.0 {
            return; // From a window before this one.
        }
        if earliest > self.ends.1 {
            let foreign = self.foreign.next_window(seen.remaining, now);
            *self = Self { foreign, ..Self::new(seen, sent, now, share) };
            return;
        }
        self.ends = (self.ends.0.max(earliest), self.ends.1.min(latest));
        self.least = self.least.min(seen.remaining);
        self.tail += u32::from(in_tail(seen, share));
        self.foreign.own();
        self.foreign.note(self.least, in_flight);
    }

    fn room(&self, now: Tick, in_flight: u32, share: Option<Share>, length: Duration) -> Room {
        let (earliest, latest) = self.ends;
        let own = share.map_or(u32::MAX, |share| share.own);
        if now > latest {
            return Room { more: UNKNOWN.min(own).saturating_sub(in_flight), until: None };
        }
        let mut more = self.least.saturating_sub(in_flight);
        if let Some(share) = share {
            let tail = self.least <= share.tail();
            let closing = now >= earliest.before(CLOSING);
            let taken = if tail { self.tail } else { 0 };
            more = if tail && closing { 0 } else { more.min(own.saturating_sub(taken.saturating_add(in_flight))) };
        } else {
            more = more.saturating_sub(self.foreign.reserve(now, latest, length));
        }
        Room { more, until: Some(latest) }
    }

    fn pace(&self, now: Tick, in_flight: u32, share: Option<Share>, length: Duration) -> Duration {
        let (earliest, latest) = self.ends;
        let left = self.least.saturating_sub(in_flight);
        match share {
            None => latest.since(now) / left.saturating_sub(self.foreign.reserve(now, latest, length)).saturating_add(1),
            Some(share) if self.least <= share.tail() => {
                let mine = share.own.saturating_sub(self.tail.saturating_add(in_flight));
                earliest.before(CLOSING).since(now) / mine.saturating_add(1)
            }
            Some(share) => earliest.before(CLOSING).since(now) * share.gateways / left.saturating_add(share.gateways),
        }
    }
}

fn in_tail(seen: &Seen, share: Option<Share>) -> bool {
    share.is_some_and(|share| seen.remaining < share.tail())
}
