//! Lua scripts of the limit store: builds their arguments and reads their replies.
//!
//! Redis runs a script atomically. All keys of a limit have the hash tag of its credential, so that a cluster keeps them on
//! one node.

use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{FromRedisValue, RedisResult, Script, ScriptInvocation};

use crate::limit_store::backlog::UsageReport;
use crate::limit_store::{
    AcquireRequest, Acquired, Charge, HeartbeatReply, Limit, Member, OpenWindow, ReplayedRequest, RequestOutcome,
};
use crate::ratelimit::ThrottleReason;
use crate::ratelimit::parts::Part;
use crate::ratelimit::usage_headers::{LimitReading, UpstreamOutcome};

/// All scripts.
#[derive(Debug)]
pub struct Scripts {
    acquire: Script,
    charge: Script,
    report: Script,
    settle: Script,
    heartbeat: Script,
    join: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        const LIMIT: &str = include_str!("lua/limit.lua");
        const OTHER_CLIENTS: &str = include_str!("lua/other_clients.lua");
        const PARTS: &str = include_str!("lua/parts.lua");
        const BACKOFF: &str = include_str!("lua/backoff.lua");
        const CAPACITY: &str = include_str!("lua/capacity.lua");
        const CLOCK: &str = include_str!("lua/clock.lua");
        const BUCKET: &str = include_str!("lua/bucket.lua");
        let script = |pieces: &[&str]| Script::new(&pieces.concat());
        Self {
            acquire: script(&[LIMIT, PARTS, OTHER_CLIENTS, BACKOFF, CAPACITY, BUCKET, include_str!("lua/acquire.lua")]),
            charge: script(&[CLOCK, BUCKET, include_str!("lua/charge.lua")]),
            report: script(&[CLOCK, BUCKET, include_str!("lua/report.lua")]),
            // Most calls return before the last two pieces, which handle a refusal.
            settle: script(&[
                LIMIT,
                OTHER_CLIENTS,
                include_str!("lua/observe.lua"),
                include_str!("lua/settle.lua"),
                BACKOFF,
                include_str!("lua/on_refusal.lua"),
            ]),
            heartbeat: script(&[LIMIT, PARTS, include_str!("lua/heartbeat.lua")]),
            join: script(&[LIMIT, PARTS, include_str!("lua/join.lua")]),
        }
    }
}

impl Scripts {
    /// Asks for permission to send one request, and charges a bucket in the same step. Returns the part of this gateway, too.
    pub async fn acquire(
        &self,
        connection: &mut impl ConnectionLike,
        limit: Limit<'_>,
        member: Member<'_>,
        request: AcquireRequest,
        charge: Option<Charge<'_>>,
    ) -> RedisResult<(Acquired, Part)> {
        let AcquireRequest { request, express, waiting, anyway, light, epoch } = request;
        let mut call = limit.invocation(&self.acquire);
        call.arg(member.gateway).arg(member.name()).arg(request);
        call.arg(u8::from(express)).arg(u8::from(waiting)).arg(u8::from(anyway)).arg(light);
        if let Some(charge) = charge {
            call.key(charge.key).arg(charge.quota.interval_ns()).arg(charge.quota.depth_ns());
        } else {
            call.arg(0).arg(0);
        }
        call.arg(epoch);
        let (verdict, ahead, by, wait, epoch, requests): (u8, i64, u8, i64, u64, u32) =
            invoke(&call, connection).await?;
        let ahead = duration(ahead);
        let acquired = match verdict {
            0 => Acquired::Go { ahead, by: duration(wait).map(|_| hold(by)) },
            1 => Acquired::Empty { ahead: ahead.unwrap_or_default() },
            2 => Acquired::Held { ahead, by: hold(by), wait: duration(wait) },
            _ => Acquired::UnknownMember,
        };
        Ok((acquired, Part { epoch, requests }))
    }

    /// Charges a bucket one token. Returns the time until the bucket is full, as an error if it has no token.
    pub async fn charge(
        &self,
        connection: &mut impl ConnectionLike,
        charge: Charge<'_>,
        clock: Option<u64>,
    ) -> RedisResult<Result<Duration, Duration>> {
        let mut call = self.charge.prepare_invoke();
        call.key(charge.key).arg(clock_arg(clock)).arg(charge.quota.interval_ns()).arg(charge.quota.depth_ns());
        let (is_charged, ahead): (u8, u64) = invoke(&call, connection).await?;
        let ahead = Duration::from_nanos(ahead);
        Ok(if is_charged == 1 { Ok(ahead) } else { Err(ahead) })
    }

    /// Charges a bucket what a gateway took from it without the store. The bucket is empty afterwards at worst.
    pub async fn report(
        &self,
        connection: &mut impl ConnectionLike,
        usage: &UsageReport,
        clock: Option<u64>,
    ) -> RedisResult<()> {
        let mut call = self.report.prepare_invoke();
        call.key(&usage.key).arg(clock_arg(clock)).arg(nanoseconds(usage.ahead)).arg(usage.quota.depth_ns());
        invoke(&call, connection).await
    }

    /// Records the outcome of a request. After a refusal of Cal.com, returns the reason and the time for which it holds
    /// requests back.
    pub async fn settle(
        &self,
        connection: &mut impl ConnectionLike,
        limit: Limit<'_>,
        gateway: &str,
        request: u64,
        outcome: RequestOutcome,
    ) -> RedisResult<Option<(ThrottleReason, Option<Duration>)>> {
        let mut call = limit.invocation(&self.settle);
        call.arg(gateway).arg(request);
        match outcome {
            RequestOutcome::Unsent => drop(call.arg("unsent")),
            RequestOutcome::Lost { within } => drop(call.arg("lost").arg(nanoseconds(within))),
            RequestOutcome::Answered { ago, verdict, told, jitter } => {
                let (name, wait) = match verdict {
                    UpstreamOutcome::Passed => ("passed", None),
                    UpstreamOutcome::Unclear => ("unclear", None),
                    UpstreamOutcome::Refused { retry_after } => ("refused", retry_after),
                    UpstreamOutcome::Edge { retry_after } => ("edge", retry_after),
                };
                call.arg("answered").arg(nanoseconds(ago)).arg(name);
                call.arg(wait.map_or(-1, nanoseconds)).arg(nanoseconds(jitter));
                for seen in &told.limits {
                    call.arg(seen.name).arg(seen.limit.map_or(-1, i64::from));
                    call.arg(seen.remaining).arg(nanoseconds(seen.reset));
                }
            }
        }
        let (by, wait): (i8, i64) = invoke(&call, connection).await?;
        Ok(u8::try_from(by).ok().map(|by| (hold(by), duration(wait))))
    }

    /// Keeps this gateway's membership alive. The reply describes the limit.
    pub async fn heartbeat(
        &self,
        connection: &mut impl ConnectionLike,
        limit: Limit<'_>,
        member: Member<'_>,
        epoch: u64,
    ) -> RedisResult<HeartbeatReply> {
        let mut call = limit.invocation(&self.heartbeat);
        call.arg(member.gateway).arg(member.name()).arg(epoch);
        let words: Vec<String> = invoke(&call, connection).await?;
        Ok(heartbeat_reply(&words).unwrap_or_default())
    }

    /// Replaces all that the store knows of this gateway's requests by `replayed`. If `joins` is false, the store only
    /// counts the gateway. Returns the number of gateways.
    pub async fn join(
        &self,
        connection: &mut impl ConnectionLike,
        limit: Limit<'_>,
        member: Member<'_>,
        joins: bool,
        replayed: &[ReplayedRequest],
    ) -> RedisResult<u32> {
        let mut call = limit.invocation(&self.join);
        call.arg(member.gateway).arg(member.name()).arg(u8::from(joins));
        for request in replayed {
            let left = u64::try_from(request.left.as_micros()).unwrap_or(u64::MAX);
            call.arg(request.request).arg(u8::from(request.in_flight)).arg(left);
        }
        invoke(&call, connection).await
    }

    /// Ends a membership. The gateway's requests still count.
    pub async fn leave(&self, connection: &mut impl ConnectionLike, keys: &str, member: Member<'_>) -> RedisResult<()> {
        let mut removal = redis::pipe();
        removal.atomic().zrem(format!("{keys}:joined"), member.name()).zrem(format!("{keys}:known"), member.gateway);
        removal.query_async(connection).await
    }
}

impl Limit<'_> {
    fn invocation<'s>(&self, script: &'s Script) -> ScriptInvocation<'s> {
        let mut call = script.prepare_invoke();
        // The name of the state has its version, so that releases with another format do not read or overwrite it.
        for key in ["state.5", "log", "flying", "joined", "known", "held"] {
            call.key(format!("{}:{key}", self.keys));
        }
        call.arg(clock_arg(self.clock)).arg(self.settings.limit).arg(u8::from(self.settings.learn_limit));
        call.arg(microseconds(self.settings.window)).arg(microseconds(self.deadline));
        call
    }
}

impl Member<'_> {
    fn name(&self) -> String {
        format!("{}:{}", self.gateway, self.times)
    }
}

/// Reads the reply of `lua/heartbeat.lua`. Returns `None` if it has another format.
fn heartbeat_reply(words: &[String]) -> Option<HeartbeatReply> {
    let (head, windows) = words.split_at_checked(8)?;
    let number = |at: usize| head.get(at)?.parse::<u32>().ok();
    let read = |window: &[String]| {
        let [name, limit, remaining, reset, uncertain] = window else { return None };
        let seen = LimitReading {
            name: name.parse().ok()?,
            limit: limit.parse().ok(),
            remaining: remaining.parse().ok()?,
            reset: Duration::from_nanos(reset.parse().ok()?),
        };
        Some(OpenWindow { seen, uncertain: Duration::from_nanos(uncertain.parse().ok()?) })
    };
    let windows = windows.chunks_exact(5).map(read).collect::<Option<Vec<_>>>()?;
    let (gateways, members, foreign) = (number(1)?, number(2)?, number(5)?);
    let part = Part { epoch: head.get(6)?.parse().ok()?, requests: number(7)? };
    Some(HeartbeatReply { is_member: number(0)? == 1, gateways, members, foreign, part, windows })
}

async fn invoke<T: FromRedisValue>(
    call: &ScriptInvocation<'_>,
    connection: &mut impl ConnectionLike,
) -> RedisResult<T> {
    call.invoke_async(connection).await
}

/// Returns the reason with this number, as in `lua/backoff.lua`.
fn hold(by: u8) -> ThrottleReason {
    match by {
        0 => ThrottleReason::Requests,
        1 => ThrottleReason::Remaining,
        2 => ThrottleReason::Pace,
        3 => ThrottleReason::Refused,
        _ => ThrottleReason::Edge,
    }
}

fn clock_arg(clock: Option<u64>) -> String {
    clock.map(|clock| clock.to_string()).unwrap_or_default()
}

/// Reads nanoseconds. A negative number means unknown.
fn duration(nanoseconds: i64) -> Option<Duration> {
    u64::try_from(nanoseconds).ok().map(Duration::from_nanos)
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
