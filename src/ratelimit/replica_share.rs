//! Divides a window among gateways that use one credential and share no limit store.
//!
//! With R gateways each has at most c requests in flight, c = clamp(N / 4R, 1, 8). The last R·c requests of a window are its
//! *tail*, and c of them are each gateway's own. A gateway sends only while *its responses from the tail + its requests in
//! flight* are below c.
//!
//! N is the limit that Cal.com reports for the window, so c and the tail are the same at all gateways. The limit in force here is
//! not the same, because a reload reaches one gateway after the other. It bounds only the log (`sliding_log.rs`), and c while no
//! response has reported a window. If Cal.com reports no limit, c is 1.
//!
//! # Why R gateways never exceed N together
//! Take a window and, of one gateway's requests that Cal.com counts in its tail, the one that was sent last, at time t. At t,
//! each of the others either was in flight or had its response, which said that it was in the tail. A response counts until the
//! gateway considers its window over. By the proof in `ends.rs`, that is never too early. The window was still open at t, so all
//! of them counted. Together they were below c, which was the same at t as it is now. So no gateway has more than c requests in
//! the tail. All R gateways together have at most R·c, and the requests before the tail are N − R·c.
//!
//! The age of a gateway's information about the window does not matter. Only the responses to its own requests count.
//!
//! # What the proof does not cover
//! - A *lost* request: it was sent and gets no response, or a 5xx that reports no limits. Nobody knows which window counts it. A
//!   gateway counts it in the tail of the open window, but it may arrive in the next one. So a window may exceed N by the lost
//!   requests that it counts, and by no more.
//! - A process that ends and one that replaces it within a window. The new one does not know what the old one sent in the tail.
//! - Windows that Cal.com prolongs with their old count. `upstream_windows.rs` avoids the end of a window for that reason.
//! - More gateways than N. Each gateway may send one request of its own, so they may exceed N, whatever rule each follows alone.
//!   They need a store.
//! - Another R, c or N. While a reload that changes R has reached only some gateways, their tails differ. They also differ if
//!   Cal.com changes a limit within a window. A limit configured above Cal.com's allows too large a c until a response reports a
//!   window.
//! - Several limits of one credential. The proof is about one limit, which all gateways follow.

use std::time::Duration;

/// Share of a gateway in a credential that R gateways use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaShare {
    /// R: number of gateways on the credential.
    pub gateways: u32,
    /// c: maximum requests in flight, and maximum requests of its own in the tail of a window.
    pub own: u32,
}

impl ReplicaShare {
    /// Returns the share of each of `gateways` in a window of `limit` requests; `None` for a single gateway.
    pub fn of(gateways: u32, limit: u32) -> Option<Self> {
        (gateways > 1).then(|| Self { gateways, own: (limit / gateways.saturating_mul(4)).clamp(1, 8) })
    }

    /// Returns R·c: the remaining count at which the tail of a window begins.
    pub fn tail(self) -> u32 {
        self.own.saturating_mul(self.gateways)
    }
}

/// Returns what one of `gateways` may send, and in which time, if Cal.com reports no count. That is an equal part of the limit,
/// or one request in a longer time.
pub fn equal_part(gateways: u32, limit: u32, window: Duration) -> (u32, Duration) {
    if limit >= gateways {
        return (limit / gateways.max(1), window);
    }
    let stretched = window.saturating_mul(gateways) / limit.max(1);
    (1, stretched)
}
