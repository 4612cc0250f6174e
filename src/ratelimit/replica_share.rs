//! Divides a window among gateways that use one credential and share no limit store.
//!
//! With R gateways each has at most c requests in flight, c = clamp(N / 4R, 1, 8). The last R·c requests of a window are
//! its *tail*, and c of them are each gateway's own: it sends only while *its answers from the tail + its requests in
//! flight* are below c.
//!
//! N is the limit that Cal.com tells of the window, so c and the tail are the same at all gateways. The limit in force here is not: a
//! reload changes it, and reaches one gateway after the other. It bounds the log only (`sliding_log.rs`), and c while no response has told of a
//! window. Where Cal.com tells no limit, c is 1.
//!
//! # Why R gateways never exceed N together
//! Take a window and, of one gateway's requests that Cal.com counts in its tail, the one that was sent last, at time t. At t, each of the
//! others either was in flight or had its response, which said that it was in the tail. A response counts until the gateway takes its
//! window to be over, and by the proof in `ends.rs` that is never too early. As the window was still open at t, all of them counted,
//! and together they were below c, which was the same at t as it is now. So no gateway has more than c requests in the tail. All R
//! gateways together have at most R·c, and the requests before the tail are N − R·c.
//!
//! What a gateway last heard of the window may be as old as it likes. Only the responses to its own requests count.
//!
//! # What the proof does not cover
//! - A request that was sent and gets no response, or a 5xx that reports no limits (a *lost* one). Nobody knows which window counts it.
//!   A gateway takes it to be in the tail of the open window, but it may arrive in that of the next. So a window may exceed N by the lost
//!   requests that it counts, and by no more.
//! - A process that ends and one that takes its place within a window. The new one does not know what the old one sent in the tail.
//! - Windows that Cal.com prolongs with their old count. The gate avoids the end of a window for that (`gate.rs`).
//! - More gateways than N. Each gateway may send one request of its own, so they may exceed N, whatever rule each goes by alone. They need a
//!   store.
//! - Another R, c or N. While a reload that changes R has reached only some gateways, their tails differ, as they do where Cal.com changes
//!   a limit within a window. A limit that is configured above Cal.com's allows too large a c until a response tells of a window.
//! - Several limits of one credential. The proof is of one limit, which all gateways go by.

use std::time::Duration;

/// A gateway's part of a credential that R of them use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaShare {
    /// R: gateways on the credential.
    pub gateways: u32,
    /// c: requests in flight, and requests of its own in a window's tail.
    pub own: u32,
}

impl ReplicaShare {
    /// The part of each of `gateways` of a window with `limit` requests; `None` for one gateway alone.
    pub fn of(gateways: u32, limit: u32) -> Option<Self> {
        (gateways > 1).then(|| Self { gateways, own: (limit / gateways.saturating_mul(4)).clamp(1, 8) })
    }

    /// R·c: how many requests are left when a window's tail begins.
    pub fn tail(self) -> u32 {
        self.own.saturating_mul(self.gateways)
    }
}

/// What one of `gateways` may send in which time where there is no count of Cal.com's to go by: an equal part of the
/// limit, or one request in the time that makes it one.
pub fn equal_part(gateways: u32, limit: u32, window: Duration) -> (u32, Duration) {
    if limit >= gateways {
        return (limit / gateways.max(1), window);
    }
    let stretched = window.saturating_mul(gateways) / limit.max(1);
    (1, stretched)
}
