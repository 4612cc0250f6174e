//! Limit store without a server: the test sends each reply to `acquire`, late, never, or with an error.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use calgate::limit_store::backlog::UsageReport;
use calgate::limit_store::{
    AcquireRequest, Acquired, CallError, CallFuture, Charge, HeartbeatReply, Limit, LimitStore, Member,
    ReplayedRequest, RequestOutcome,
};
use calgate::ratelimit::parts::Part;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::patience;

/// Limit store whose replies a test decides.
#[derive(Debug)]
pub struct FakeLimitStore {
    acquires: (Sender<AcquireCall>, Mutex<Receiver<AcquireCall>>),
    is_down: AtomicBool,
    /// Number of times that the client dropped the connection.
    pub disconnects: AtomicU32,
    /// Limits that have a member, and those of them that have sent a heartbeat since.
    members: Mutex<[BTreeSet<String>; 2]>,
    /// Requests that each join replayed.
    pub joins: Mutex<Vec<Vec<ReplayedRequest>>>,
    /// Number of calls of `charge`.
    pub charges: AtomicU32,
    /// Requests that were settled, and whether as unsent.
    pub settled: Mutex<Vec<(u64, bool)>>,
    /// Reports of charges without the store.
    pub reports: Mutex<Vec<UsageReport>>,
}

/// A call of `acquire` that waits for its reply.
#[derive(Debug)]
pub struct AcquireCall {
    pub request: AcquireRequest,
    /// Number of joins of the gateway.
    pub times: u64,
    /// Whether the call charges a bucket.
    pub has_charge: bool,
    reply: oneshot::Sender<Result<Acquired, CallError>>,
}

impl AcquireCall {
    /// Sends the reply.
    pub fn reply(self, acquired: Acquired) {
        self.reply.send(Ok(acquired)).expect("the client waits for the reply");
    }
}

impl Default for FakeLimitStore {
    fn default() -> Self {
        let (calls, received) = channel();
        Self {
            acquires: (calls, Mutex::new(received)),
            is_down: AtomicBool::new(false),
            disconnects: AtomicU32::new(0),
            members: Mutex::default(),
            joins: Mutex::default(),
            charges: AtomicU32::new(0),
            settled: Mutex::default(),
            reports: Mutex::default(),
        }
    }
}

impl FakeLimitStore {
    /// Waits for the next call of `acquire`. A test that keeps the call without a reply loses the reply.
    pub fn next_acquire(&self) -> AcquireCall {
        self.acquires.1.lock().recv_timeout(patience()).expect("a call of acquire")
    }

    /// Makes all calls fail from now on, or succeed again.
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    /// Returns whether all members have sent a heartbeat. The reply to their join has arrived before that.
    pub fn has_joined(&self) -> bool {
        let [joined, alive] = &*self.members.lock();
        !joined.is_empty() && joined == alive
    }

    fn reply<T: Send + 'static>(&self, reply: T) -> CallFuture<'_, T> {
        let is_down = self.is_down.load(Ordering::Relaxed);
        Box::pin(async move { if is_down { Err(CallError::Failed("down".to_owned())) } else { Ok(reply) } })
    }
}

impl LimitStore for FakeLimitStore {
    fn servers(&self) -> &'static str {
        "fake"
    }

    fn connect(&self) -> BoxFuture<'_, Result<(), String>> {
        let is_down = self.is_down.load(Ordering::Relaxed);
        Box::pin(async move { if is_down { Err("down".to_owned()) } else { Ok(()) } })
    }

    fn diagnose(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async { None })
    }

    fn disconnect(&self) {
        self.disconnects.fetch_add(1, Ordering::Relaxed);
    }

    fn acquire<'a>(
        &'a self,
        _limit: Limit<'a>,
        member: Member<'a>,
        request: AcquireRequest,
        charge: Option<Charge<'a>>,
    ) -> CallFuture<'a, (Acquired, Part)> {
        let (reply, replied) = oneshot::channel();
        let call = AcquireCall { request, times: member.times, has_charge: charge.is_some(), reply };
        self.acquires.0.send(call).unwrap();
        Box::pin(async move {
            let acquired = replied.await.unwrap_or(Err(CallError::Failed("no reply".to_owned())))?;
            Ok((acquired, Part::default()))
        })
    }

    fn charge<'a>(&'a self, _charge: Charge<'a>) -> CallFuture<'a, Result<Duration, Duration>> {
        self.charges.fetch_add(1, Ordering::Relaxed);
        self.reply(Ok(Duration::ZERO))
    }

    fn settle<'a>(
        &'a self,
        _limit: Limit<'a>,
        _gateway: &'a str,
        request: u64,
        outcome: RequestOutcome,
    ) -> CallFuture<'a, ()> {
        self.settled.lock().push((request, matches!(outcome, RequestOutcome::Unsent)));
        self.reply(())
    }

    fn heartbeat<'a>(&'a self, limit: Limit<'a>, _member: Member<'a>, _epoch: u64) -> CallFuture<'a, HeartbeatReply> {
        self.members.lock()[1].insert(limit.keys.to_owned());
        self.reply(HeartbeatReply { is_member: true, gateways: 1, members: 1, ..HeartbeatReply::default() })
    }

    fn join<'a>(
        &'a self,
        limit: Limit<'a>,
        _member: Member<'a>,
        joins: bool,
        replayed: &'a [ReplayedRequest],
    ) -> CallFuture<'a, u32> {
        if joins {
            self.members.lock()[0].insert(limit.keys.to_owned());
            self.joins.lock().push(replayed.to_vec());
        }
        self.reply(1)
    }

    fn leave<'a>(&'a self, _keys: &'a str, _member: Member<'a>) -> CallFuture<'a, ()> {
        self.reply(())
    }

    fn report<'a>(&'a self, usage: &'a UsageReport) -> CallFuture<'a, ()> {
        self.reports.lock().push(usage.clone());
        self.reply(())
    }
}
