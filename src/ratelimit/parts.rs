//! The part of the limit that a gateway may use after it has lost the limit store.
//!
//! Gateways on a store lose it one by one: one is stopped for a while, another is cut off, and the others still use the credential by the
//! store. So the store keeps a part of N for each gateway, and a gateway without the store sends no more than its part.
//!
//! # The rule, in every mix of modes
//! - The store lets out a request only while *its log + all parts kept* is below N. Its log holds the requests in flight and those
//!   answered within the last window, of all gateways, as far as it was told.
//! - Parts have an *epoch*, which each change of their size begins. A gateway holds the part of the latest epoch that it has learned of.
//!   Each of its calls to the store names that epoch. Until a gateway has named an epoch since parts last became larger, the store keeps
//!   for it the largest part since every gateway had named the current one. From then on it keeps the part that the gateway named last.
//!   Parts become larger only when every gateway has named the current epoch.
//! - A gateway is *alone* while the store knows no other one and all requests in the store's log are its own. It holds half of N then. The
//!   store keeps nothing for it, because its own log is within N.
//! - A gateway changes to its own rules only when it has given the store up, never because one call was late. While it has not heard from
//!   the store, no request goes out.
//! - From then on it lets out a request only while *its own log of such requests* is below its part. It holds its part for one window and
//!   one request deadline since it last heard from the store. Its last request from that arrives within a deadline and counts for a
//!   window. So the store keeps the part for twice as long, and for 1.5 s more, as not each call that it answers puts that off.
//! - When it joins again it first tells the store of all its requests, and gives up its part.
//! - It says goodbye only while it goes by the store and no request of its own counts any more, and gives up its part before. With the
//!   goodbye the store keeps nothing for it. Until it joins again it holds a part of 0.
//! - After [`PartLease::shares_from`] it goes by the rule of `replicas.rs` instead: then all requests that the store let out without a thought
//!   of it have arrived, and their windows are over. The store has gone by that rule since it missed the gateway's heartbeats. A gateway
//!   that was alone is one of two then, as another one may have joined.
//!
//! # Why no window holds more than N
//! By the proof in `log.rs`, a window holds at most as many requests of one log as the log's limit was when its last request was let out.
//! Take the last request by the store's word, let out at time t. The store's log, with those of all gateways that joined again, held at
//! most N less the parts kept at t. A gateway that did not join again before t sends no more than its part, and that is no more than
//! what was kept for it at t: either it has not named an epoch since parts last became larger, or it holds no more than it named last,
//! as parts have only become smaller since. So together they are at most N.
//!
//! Where the gateway was alone at t, nothing was kept for it, and all requests are in its own log, which is within N. Where another one
//! has joined by t, half of N is kept for the first until it has named a smaller part.
//!
//! No clock is compared with another, and no call needs to be in time: one that arrives late names an epoch that is still true of its
//! gateway, or an older one, which frees nothing.
//!
//! A process may be stopped at any moment, also between the store's word and the write of the request. The request is in the store's log
//! then, as one in flight, and counts from its arrival like any other.
//!
//! # What the rule does not cover
//! A gateway that has never reached the store since it started, or that uses a credential for the first time while the store is lost,
//! holds no part that the store knows of. It goes by `budget.expected_replicas`. A store that comes back empty knows a gateway's
//! requests only when that gateway has joined again.
//!
//! A gateway that is cut off for so long that the store forgets it. All that it sent from its part is over then, and it goes by the rule
//! of `replicas.rs`. The others do not any more, and take its requests for another program's. A gateway does not learn of those that
//! join while it is cut off: where there are more than it heard of, and more than two, it takes too large a share of a window's tail.
//! `budget.expected_replicas` is for that. A limiter that is suspended while it is cut off: its clock stands still.

use std::time::Duration;

use crate::time::MonoTime;

/// For so long the store takes a gateway to go by it that it has not heard from (`FRESH` of `lua/limit.lua`).
const MEMBER_TIMEOUT: Duration = Duration::from_millis(1500);

/// The part of each gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part {
    /// Which change of the parts' size it is of; 0 before the first.
    pub epoch: u64,
    /// How many requests in a window it is.
    pub requests: u32,
}

/// What this gateway holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct PartLease {
    part: Part,
    /// When the store was last asked that has answered.
    heard: Option<MonoTime>,
    shares_from: MonoTime,
    until: MonoTime,
}

impl PartLease {
    /// The latest epoch that it knows.
    pub fn epoch(&self) -> u64 {
        self.part.epoch
    }

    /// The store, which was asked at `asked`, has told of `part`. Without the store a part does not become larger. Tells whether the store
    /// is still to learn that this gateway holds less.
    pub fn update(&mut self, part: Part, asked: MonoTime, by_store: bool) -> bool {
        if part.epoch == 0 {
            return false;
        }
        if by_store {
            self.heard = self.heard.max(Some(asked));
        }
        if part.epoch <= self.part.epoch {
            return false;
        }
        let before = std::mem::replace(&mut self.part, part).requests;
        if !by_store {
            self.part.requests = part.requests.min(before);
        }
        self.part.requests < before
    }

    /// It gives up its part, as it is about to join.
    pub fn give_up(&mut self) {
        self.part.requests = 0;
    }

    /// It goes on without the store.
    pub fn start_offline(&mut self, window: Duration, deadline: Duration, now: MonoTime) {
        if let Some(heard) = self.heard {
            self.until = heard.after(window).after(deadline);
            self.shares_from = now.after(MEMBER_TIMEOUT).after(window).after(deadline);
        }
    }

    /// From when on it shares with the others by Cal.com's own count.
    pub fn shares_from(&self) -> MonoTime {
        self.shares_from
    }

    /// How many requests it may send in a window; `None` where its part does not matter any more.
    pub fn limit(&self, now: MonoTime) -> Option<u32> {
        (now < self.shares_from).then_some(if now < self.until { self.part.requests } else { 0 })
    }
}
