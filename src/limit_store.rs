//! Limit store: rate-limit state that several gateways share.
//!
//! [`LimitStore`] is the interface of an implementation; [`RedisLimitStore`] implements it with Redis or Valkey.
//! [`LimitStoreClient`] puts a timeout, a circuit breaker and a backlog in front of any implementation.
//!
//! The stages `limit` and `budget` call the client if `[limit_store]` is configured. A request costs one round trip, which
//! decides about its bucket and its budget together. It costs two if their keys have different hash tags, or if the budget
//! only observes. The gateway reports the outcome afterwards, and no request waits for that.

pub mod backlog;
mod calls;
pub mod circuit_breaker;
mod client;
pub mod peers;
mod reconnect;
pub mod redis;

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use self::calls::{
    AcquireRequest, Acquired, Charge, HeartbeatReply, Limit, Member, OpenWindow, ReplayedRequest, RequestOutcome,
};
pub use self::client::{LimitStoreClient, StoreStats};
pub use self::redis::RedisLimitStore;
use crate::limit_store::backlog::UsageReport;
use crate::ratelimit::parts::Part;

/// Default of `limit_store.timeout`: longest time that a call may take.
pub const CALL_TIMEOUT: Duration = Duration::from_millis(50);

/// Future of a call.
pub type CallFuture<'a, T> = BoxFuture<'a, Result<T, CallError>>;

/// Implementation of a limit store. Each call is atomic: no call of another gateway comes between its reads and its writes.
pub trait LimitStore: fmt::Debug + Send + Sync {
    /// Returns the servers' hosts and ports, for log messages.
    fn servers(&self) -> &str;

    /// Opens a connection, and closes the previous one. The error is a reason for the log.
    fn connect(&self) -> BoxFuture<'_, Result<(), String>>;

    /// Looks for the cause of a failed [`Self::connect`]. Returns `None` if it finds nothing beyond the error itself.
    fn diagnose(&self) -> BoxFuture<'_, Option<String>>;

    /// Drops the connection. Calls fail until the next [`Self::connect`].
    fn disconnect(&self);

    /// Asks for permission to send one request, and charges a bucket in the same step.
    fn acquire<'a>(
        &'a self,
        limit: Limit<'a>,
        member: Member<'a>,
        request: AcquireRequest,
        charge: Option<Charge<'a>>,
    ) -> CallFuture<'a, (Acquired, Part)>;

    /// Charges a bucket one token. Returns the time until the bucket is full, as an error if it has no token.
    fn charge<'a>(&'a self, charge: Charge<'a>) -> CallFuture<'a, Result<Duration, Duration>>;

    /// Records the outcome of a request.
    fn settle<'a>(
        &'a self,
        limit: Limit<'a>,
        gateway: &'a str,
        request: u64,
        outcome: RequestOutcome,
    ) -> CallFuture<'a, ()>;

    /// Keeps this gateway's membership alive. The reply describes the limit. `epoch` is the latest epoch of parts that this
    /// gateway knows.
    fn heartbeat<'a>(&'a self, limit: Limit<'a>, member: Member<'a>, epoch: u64) -> CallFuture<'a, HeartbeatReply>;

    /// Replaces all that the store knows of this gateway's requests by `replayed`. If `joins` is false, the store only
    /// counts the gateway, which still decides locally. Returns the number of gateways.
    fn join<'a>(
        &'a self,
        limit: Limit<'a>,
        member: Member<'a>,
        joins: bool,
        replayed: &'a [ReplayedRequest],
    ) -> CallFuture<'a, u32>;

    /// Ends this gateway's membership in the limit with these `keys`. Its requests still count.
    fn leave<'a>(&'a self, keys: &'a str, member: Member<'a>) -> CallFuture<'a, ()>;

    /// Charges a bucket what this gateway took from it without the store. The bucket is empty afterwards at worst.
    fn report<'a>(&'a self, usage: &'a UsageReport) -> CallFuture<'a, ()>;
}

/// Reason why a call has no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// There is no connection. The call was not sent.
    NotConnected,
    /// The call failed, for this reason.
    Failed(String),
}

/// Rule for the consumers' buckets while the store is unavailable: `limit_store.on_loss`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailureMode {
    /// Each gateway has a whole bucket for each consumer, as it would have without a store.
    #[default]
    Local,
    /// Each gateway has an equal part of each bucket.
    Share,
    /// Each gateway rejects all consumers.
    Closed,
}

/// Failure of a call: the store is unavailable, or did not reply in time. The caller has to decide locally.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;
