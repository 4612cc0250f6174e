//! Several gateways on one credential that share nothing: Cal.com's own count is what they go by.
//!
//! With R gateways each has at most c requests in flight, c = clamp(N / 4R, 1, 8). The last R·c requests of a window are
//! its *tail*, and c of them are each gateway's own: it sends only while *its answers from the tail + its requests in
//! flight* are below c.
//!
//! # Why R gateways never exceed N together
//! Of one gateway's requests that Cal.com counts in the tail, take the one sent last. When it was sent, every other one
//! either had its answer, which said that it was in the tail, or was in flight; together they were below c. So no gateway
//! has more than c in the tail, all R together no more than R·c, and the requests before the tail are N − R·c.
//! What a gateway last heard may be as old as it likes; only what its own answers say counts.

use std::time::Duration;

/// A gateway's part of a credential that R of them use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// R: gateways on the credential.
    pub gateways: u32,
    /// c: requests in flight, and requests of its own in a window's tail.
    pub own: u32,
}

impl Share {
    /// The part of each of `gateways` of a limit of `limit` a window; `None` for one gateway alone.
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
