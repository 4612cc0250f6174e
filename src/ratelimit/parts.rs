//! The part of the limit that a gateway may use after it has lost the limit store.
//!
//! Gateways on a store lose it one by one. One is stopped for a while, another is cut off, and the others still follow the store.
//! So the store keeps a part of N for each gateway, and a gateway without the store sends no more than its part.
//!
//! # The rule, in every mix of modes
//! - The store admits a request only while *its log + all parts kept* is below N. Its log holds the requests in flight and those
//!   answered within the last window, of all gateways, as far as they reported them.
//! - Parts have an *epoch*. Each change of their size begins a new one. A gateway holds the part of the latest epoch that it has
//!   learned of. Each of its calls to the store names that epoch. Until a gateway has named an epoch since parts last became
//!   larger, the store keeps for it the largest part since every gateway had named the current one. From then on it keeps the
//!   part that the gateway named last. Parts become larger only when every gateway has named the current epoch.
//! - A gateway is *alone* while the store knows no other one and all requests in the store's log are its own. It holds half of N
//!   then. The store keeps nothing for it, because its own log is within N.
//! - A gateway leaves shared mode only when the circuit breaker has given up the store, never because one call was late. While a
//!   call is late, the gateway sends no request.
//! - Without the store, it admits a request only while *its own log of such requests* is below its part. It holds its part for
//!   one window and one request deadline after the last call that the store answered. Its last request from the part arrives
//!   within a deadline and counts for a window. So the store keeps the part for twice as long. It adds 1.5 s, because not every
//!   answered call renews the time.
//! - Before it joins again, it reports all its requests to the store, and gives up its part.
//! - It says goodbye only while it is in shared mode and none of its requests counts any more. It gives up its part first. After
//!   the goodbye the store keeps nothing for it, and it holds a part of 0 until it joins again.
//! - After [`PartLease::shares_from`] it follows the rule of `replica_share.rs` instead. By then all requests that the store
//!   admitted without regard to it have arrived, and their windows are over. The store has followed that rule since it missed the
//!   gateway's heartbeats. A gateway that was alone is then one of two, because another one may have joined.
//!
//! # Why no window holds more than N
//! By the proof in `sliding_log.rs`, a window holds at most as many requests of one log as the log's limit was when its last
//! request was admitted. Take the last request that the store admitted, at time t. The store's log, with those of all gateways
//! that joined again, held at most N less the parts kept at t. A gateway that did not join again before t sends no more than its
//! part. That is no more than the store kept for it at t, for one of two reasons. Either it has not named an epoch since parts
//! last became larger, or it holds no more than it named last, because parts have only become smaller since. So together they are
//! at most N.
//!
//! If the gateway was alone at t, nothing was kept for it, and all requests are in its own log, which is within N. If another one
//! has joined by t, half of N is kept for the first until it has named a smaller part.
//!
//! No clock is compared with another, and no call needs to be in time. A late call names an epoch that still holds for its
//! gateway, or an older one, which frees nothing.
//!
//! A process may be stopped at any moment, also between the store's decision and the write of the request. The request is then in
//! the store's log as one in flight, and counts from its arrival like any other.
//!
//! # What the rule does not cover
//! - A gateway that has never reached the store since it started, or that first uses a credential while the store is lost. The
//!   store keeps no part for it. It follows `budget.expected_replicas`. A store that comes back empty knows a gateway's requests
//!   only after that gateway has joined again.
//! - A gateway that is cut off until the store forgets it. All requests from its part are over by then, and it follows the rule
//!   of `replica_share.rs`. The others do not follow that rule any more, and attribute its requests to another program.
//! - Gateways that join while one is cut off, which does not learn of them. If there are more than it knew of, and more than two,
//!   its share of a window's tail is too large. Set `budget.expected_replicas` for this case.
//! - A machine that is suspended while it is cut off, because its clock stands still.

use std::time::Duration;

use crate::time::MonoTime;

/// Silence after which the store counts a gateway as cut off, 1.5 s (`FRESH` of `src/limit_store/redis/lua/limit.lua`).
const MEMBER_TIMEOUT: Duration = Duration::from_millis(1500);

/// Part of each gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part {
    /// Number of the change of size; 0 before the first.
    pub epoch: u64,
    /// Requests in a window.
    pub requests: u32,
}

/// The part that this gateway holds, and for how long.
#[derive(Debug, Clone, Copy, Default)]
pub struct PartLease {
    part: Part,
    /// When the last answered call to the store was made.
    heard: Option<MonoTime>,
    shares_from: MonoTime,
    until: MonoTime,
}

impl PartLease {
    /// Returns the latest known epoch.
    pub fn epoch(&self) -> u64 {
        self.part.epoch
    }

    /// Records the `part` in the reply to a call at `asked`. Without the store, a part does not become larger. Returns whether
    /// the store still has to learn that this gateway holds less.
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

    /// Gives up the part, before the gateway joins or leaves the store.
    pub fn give_up(&mut self) {
        self.part.requests = 0;
    }

    /// Starts the time without the store.
    pub fn start_offline(&mut self, window: Duration, deadline: Duration, now: MonoTime) {
        if let Some(heard) = self.heard {
            self.until = heard.after(window).after(deadline);
            self.shares_from = now.after(MEMBER_TIMEOUT).after(window).after(deadline);
        }
    }

    /// Returns when the gateway starts to share Cal.com's windows with the others.
    pub fn shares_from(&self) -> MonoTime {
        self.shares_from
    }

    /// Returns how many requests the gateway may send in a window; `None` when its part no longer matters.
    pub fn limit(&self, now: MonoTime) -> Option<u32> {
        (now < self.shares_from).then_some(if now < self.until { self.part.requests } else { 0 })
    }
}
