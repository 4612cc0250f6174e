//! Arguments and replies of the calls to a limit store.

use std::time::Duration;

use crate::limit_store::CALL_TIMEOUT;
use crate::ratelimit::ends::Ends;
use crate::ratelimit::parts::Part;
use crate::ratelimit::usage_headers::{LimitReading, LimitReadings, UpstreamOutcome};
use crate::ratelimit::{Quota, Settings, ThrottleReason};
use crate::time::MonoTime;

/// One limit of a credential.
#[derive(Debug, Clone, Copy)]
pub struct Limit<'a> {
    /// Prefix of its keys: `calgate:{credential}:limit`.
    pub keys: &'a str,
    /// N, the window, and whether responses may raise N.
    pub settings: Settings,
    /// Longest time from the admission of a request to its response.
    pub deadline: Duration,
    /// Clock of a test, in microseconds. Otherwise the server's clock counts.
    pub clock: Option<u64>,
}

/// Membership of this gateway in a limit.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Name of the gateway. Each start has another one.
    pub gateway: &'a str,
    /// Number of joins. The store rejects late calls of an older membership.
    pub times: u64,
}

/// Bucket to charge one token.
#[derive(Debug, Clone, Copy)]
pub struct Charge<'a> {
    /// Key of the bucket. In a call with a limit, both have the same hash tag.
    pub key: &'a str,
    /// Size and pace of the bucket.
    pub quota: Quota,
}

/// Request that asks for permission.
#[derive(Debug, Clone, Copy)]
pub struct AcquireRequest {
    /// Number of the request, unique in this gateway.
    pub request: u64,
    /// Whether it skips the fair queue.
    pub express: bool,
    /// Whether other requests of this gateway wait in the fair queue.
    pub waiting: bool,
    /// Whether the gateway sends it even if the budget denies it.
    pub anyway: bool,
    /// Expected requests of a window that skip the fair queue of this gateway.
    pub light: u32,
    /// Latest epoch of parts that this gateway knows.
    pub epoch: u64,
}

/// Reply to [`LimitStore::acquire`](crate::limit_store::LimitStore::acquire).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquired {
    /// The request may go.
    Go {
        /// Time until the bucket is full, if one was charged.
        ahead: Option<Duration>,
        /// Reason for which the budget would deny a request that does not go anyway.
        by: Option<ThrottleReason>,
    },
    /// The bucket is empty. Nothing was charged.
    Empty {
        /// Time until the bucket is full.
        ahead: Duration,
    },
    /// The budget denies the request. The bucket, if any, is charged.
    Held {
        /// Time until the bucket is full.
        ahead: Option<Duration>,
        /// Reason of the denial.
        by: ThrottleReason,
        /// Time until the budget may have capacity. `None` if that does not depend on time alone.
        wait: Option<Duration>,
    },
    /// The store does not know this gateway, for example after a restart of the store. Nothing was charged.
    UnknownMember,
}

/// Outcome of a request that the store admitted.
#[derive(Debug, Clone)]
pub enum RequestOutcome {
    /// A response came.
    Answered {
        /// Lower bound of the time since the request was sent.
        ago: Duration,
        /// Meaning of the response for the limit.
        verdict: UpstreamOutcome,
        /// Limits that the response reports.
        told: LimitReadings,
        /// Time to add to the wait after a 429.
        jitter: Duration,
    },
    /// The request was sent, and its response is lost.
    Lost {
        /// Time until the request has arrived at Cal.com at the latest.
        within: Duration,
    },
    /// The request was not sent.
    Unsent,
}

impl RequestOutcome {
    /// Creates the outcome of a request that was sent `ago`. The store counts from the arrival of the call, so that adds the
    /// time of a call.
    pub fn answered(ago: Duration, verdict: UpstreamOutcome, told: LimitReadings) -> Self {
        // After a block the script admits one request of all gateways, so that needs no jitter.
        Self::Answered { ago: ago + CALL_TIMEOUT, verdict, told, jitter: Duration::ZERO }
    }
}

/// Request of this gateway that the store has to count after a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayedRequest {
    /// Number of the request.
    pub request: u64,
    /// Whether it has no response yet.
    pub in_flight: bool,
    /// Time until the request has arrived at the latest if it is in flight. Otherwise the time until it no longer counts.
    pub left: Duration,
}

/// Reply to [`LimitStore::heartbeat`](crate::limit_store::LimitStore::heartbeat).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// Whether this gateway is a member.
    pub is_member: bool,
    /// Number of gateways on the limit.
    pub gateways: u32,
    /// Number of gateways for which the store decides.
    pub members: u32,
    /// Requests of other programs in one window: observed, expected from earlier windows, or suspected.
    pub foreign: u32,
    /// Part of this gateway.
    pub part: Part,
    /// Open windows of Cal.com.
    pub windows: Vec<OpenWindow>,
}

/// Window of Cal.com, from the responses to all gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenWindow {
    /// Remaining requests, and the longest time to the window's end.
    pub seen: LimitReading,
    /// Time by which the window may end earlier than that.
    pub uncertain: Duration,
}

impl OpenWindow {
    /// Returns the bounds of the window's end, for a call that began at `asked` and ended by `now`.
    pub fn ends(&self, asked: MonoTime, now: MonoTime) -> Ends {
        let Self { seen, uncertain } = self;
        Ends { earliest: asked.after(seen.reset).before(*uncertain), latest: now.after(seen.reset) }
    }
}
