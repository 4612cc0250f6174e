//! The Lua scripts of the limit store: their arguments and their replies.
//!
//! A script decides by itself, on the server's clock, and nothing of another gateway's comes between. All keys of a limit share
//! the hash tag of its credential, so that a cluster has them in one place.

use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{FromRedisValue, RedisResult, Script, ScriptInvocation};

use crate::limit_store::backlog::Owing;
pub use crate::limit_store::heartbeat_reply::{Heard, OpenWindow};
use crate::ratelimit::parts::Part;
use crate::ratelimit::usage_headers::{Told, Verdict};
use crate::ratelimit::{Hold, Quota, Settings};

/// All scripts.
#[derive(Debug)]
pub struct Scripts {
    acquire: Script,
    charge: Script,
    owe: Script,
    settle: Script,
    heartbeat: Script,
    join: Script,
}

/// One limit of a credential, as scripts are told of it.
#[derive(Debug, Clone, Copy)]
pub struct Limit<'a> {
    /// What its keys begin with: `calgate:{credential}:limit`.
    pub keys: &'a str,
    /// N, the window, and whether answers may raise N.
    pub settings: Settings,
    /// From a request's being let out to the moment by which it has an answer or never will.
    pub deadline: Duration,
    /// The clock of a test, in microseconds; the server's own if there is none.
    pub clock: Option<u64>,
}

/// This gateway, as a limit's other users see it.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Which gateway; another one after each start.
    pub gateway: &'a str,
    /// Counts how often it has joined: what was asked under an older membership, and comes late, is refused.
    pub times: u64,
}

/// A bucket to charge beside.
#[derive(Debug, Clone, Copy)]
pub struct Charge<'a> {
    /// Its key, with the same hash tag as the limit's.
    pub key: &'a str,
    /// Its size and pace.
    pub quota: Quota,
}

/// How a request asks.
#[derive(Debug, Clone, Copy)]
pub struct Asking {
    /// Tells this gateway's requests apart.
    pub request: u64,
    /// Whether it need not take turns.
    pub express: bool,
    /// Whether others wait here for theirs.
    pub waiting: bool,
    /// Whether it goes whatever the budget says.
    pub anyway: bool,
    /// What others here who need not take turns are expected to ask for in a window.
    pub light: u32,
    /// The latest epoch of parts that this gateway knows.
    pub epoch: u64,
}

/// The answer to [`Scripts::acquire`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquired {
    /// It may go.
    Go {
        /// How far ahead the bucket's being full lies, if one was charged.
        ahead: Option<Duration>,
        /// What would have held it, had it not gone anyway.
        by: Option<Hold>,
    },
    /// The bucket is empty; nothing was charged.
    Empty {
        /// How far ahead its being full lies.
        ahead: Duration,
    },
    /// The budget holds it. The bucket, if any, is charged.
    Held {
        /// How far ahead the bucket's being full lies.
        ahead: Option<Duration>,
        /// By what.
        by: Hold,
        /// For how long, if time alone will tell.
        wait: Option<Duration>,
    },
    /// This gateway is not known, as after a restart of the store: it has to join first. Nothing was charged.
    Stranger,
}

/// What came of a request.
#[derive(Debug, Clone)]
pub enum Fate {
    /// Its answer has come.
    Answered {
        /// How long ago it was sent, at least.
        ago: Duration,
        /// What the limiter made of it.
        verdict: Verdict,
        /// What the answer told of limits.
        told: Told,
        /// What to add to the wait after a 429.
        jitter: Duration,
    },
    /// It was sent, and nothing more will be known of it.
    Lost {
        /// By when it has arrived, if at all.
        within: Duration,
    },
    /// It was not sent after all.
    Unsent,
}

/// A request that the store has to be told of again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missed {
    /// Which.
    pub request: u64,
    /// Whether it has no answer.
    pub in_flight: bool,
    /// Until it has arrived at the latest, or until it is released.
    pub left: Duration,
}

impl Fate {
    /// An answer to a request that was sent `ago`. A call takes a while to arrive, and the script counts from then.
    pub fn answered(ago: Duration, verdict: Verdict, told: Told) -> Self {
        // Of the gateways that wait for the end of a block, the script lets one through: no jitter needs to part them.
        Self::Answered { ago: ago + crate::limit_store::WITHIN, verdict, told, jitter: Duration::ZERO }
    }
}

impl Default for Scripts {
    fn default() -> Self {
        const LIMIT: &str = include_str!("lua/limit.lua");
        const OTHERS: &str = include_str!("lua/others.lua");
        const PARTS: &str = include_str!("lua/parts.lua");
        const ROOM: &str = include_str!("lua/room.lua");
        const BUCKET: &str = include_str!("lua/bucket.lua");
        let script = |parts: &[&str]| Script::new(&parts.concat());
        Self {
            acquire: script(&[LIMIT, PARTS, OTHERS, ROOM, BUCKET, include_str!("lua/acquire.lua")]),
            charge: script(&[include_str!("lua/clock.lua"), BUCKET, include_str!("lua/charge.lua")]),
            owe: script(&[include_str!("lua/clock.lua"), BUCKET, include_str!("lua/owe.lua")]),
            // Nearly all end before what is made of a no.
            settle: script(&[
                LIMIT,
                OTHERS,
                include_str!("lua/told.lua"),
                include_str!("lua/settle.lua"),
                PARTS,
                ROOM,
                include_str!("lua/refused.lua"),
            ]),
            heartbeat: script(&[LIMIT, PARTS, include_str!("lua/heartbeat.lua")]),
            join: script(&[LIMIT, PARTS, include_str!("lua/join.lua")]),
        }
    }
}

impl Scripts {
    /// May a request go out?
    pub async fn acquire(
        &self,
        link: &mut impl ConnectionLike,
        limit: Limit<'_>,
        member: Member<'_>,
        asking: Asking,
        charge: Option<Charge<'_>>,
    ) -> RedisResult<(Acquired, Part)> {
        let mut call = limit.call(&self.acquire);
        call.arg(member.gateway).arg(member.name()).arg(asking.request);
        call.arg(u8::from(asking.express)).arg(u8::from(asking.waiting)).arg(u8::from(asking.anyway)).arg(asking.light);
        if let Some(charge) = charge {
            call.key(charge.key).arg(charge.quota.interval_ns()).arg(charge.quota.depth_ns());
        } else {
            call.arg(0).arg(0);
        }
        call.arg(asking.epoch);
        let (verdict, ahead, by, wait, epoch, requests): (u8, i64, u8, i64, u64, u32) = invoke(&call, link).await?;
        let ahead = nanoseconds(ahead);
        let acquired = match verdict {
            0 => Acquired::Go { ahead, by: nanoseconds(wait).map(|_| hold(by)) },
            1 => Acquired::Empty { ahead: ahead.unwrap_or_default() },
            2 => Acquired::Held { ahead, by: hold(by), wait: nanoseconds(wait) },
            _ => Acquired::Stranger,
        };
        Ok((acquired, Part { epoch, requests }))
    }

    /// Takes one token from a bucket: how far ahead its being full lies, as an error where there was none.
    pub async fn charge(
        &self,
        link: &mut impl ConnectionLike,
        charge: Charge<'_>,
        clock: Option<u64>,
    ) -> RedisResult<Result<Duration, Duration>> {
        let mut call = self.charge.prepare_invoke();
        call.key(charge.key).arg(clock_arg(clock)).arg(charge.quota.interval_ns()).arg(charge.quota.depth_ns());
        let (taken, ahead): (u8, u64) = invoke(&call, link).await?;
        let ahead = Duration::from_nanos(ahead);
        Ok(if taken == 1 { Ok(ahead) } else { Err(ahead) })
    }

    /// Takes from a bucket what a gateway has handed out by itself: that may empty it, and no more.
    pub async fn owe(&self, link: &mut impl ConnectionLike, owing: &Owing, clock: Option<u64>) -> RedisResult<()> {
        let mut call = self.owe.prepare_invoke();
        call.key(&owing.key).arg(clock_arg(clock)).arg(nanos(owing.ahead)).arg(owing.quota.depth_ns());
        invoke(&call, link).await
    }

    /// What came of a request. Answers what holds the credential after a no, and for how long.
    pub async fn settle(
        &self,
        link: &mut impl ConnectionLike,
        limit: Limit<'_>,
        gateway: &str,
        request: u64,
        fate: Fate,
    ) -> RedisResult<Option<(Hold, Option<Duration>)>> {
        let mut call = limit.call(&self.settle);
        call.arg(gateway).arg(request);
        match fate {
            Fate::Unsent => drop(call.arg("unsent")),
            Fate::Lost { within } => drop(call.arg("lost").arg(nanos(within))),
            Fate::Answered { ago, verdict, told, jitter } => {
                let (name, wait) = match verdict {
                    Verdict::Passed => ("passed", None),
                    Verdict::Unclear => ("unclear", None),
                    Verdict::Refused { retry_after } => ("refused", retry_after),
                    Verdict::Edge { retry_after } => ("edge", retry_after),
                };
                call.arg("answered").arg(nanos(ago)).arg(name).arg(wait.map_or(-1, nanos)).arg(nanos(jitter));
                for seen in &told.limits {
                    call.arg(seen.name)
                        .arg(seen.limit.map_or(-1, i64::from))
                        .arg(seen.remaining)
                        .arg(nanos(seen.reset));
                }
            }
        }
        let (by, wait): (i8, i64) = invoke(&call, link).await?;
        Ok(u8::try_from(by).ok().map(|by| (hold(by), nanoseconds(wait))))
    }

    /// This gateway is there.
    pub async fn heartbeat(
        &self,
        link: &mut impl ConnectionLike,
        limit: Limit<'_>,
        member: Member<'_>,
        epoch: u64,
    ) -> RedisResult<Heard> {
        let mut call = limit.call(&self.heartbeat);
        call.arg(member.gateway).arg(member.name()).arg(epoch);
        let words: Vec<String> = invoke(&call, link).await?;
        Ok(Heard::read(&words).unwrap_or_default())
    }

    /// This gateway comes or comes back, with all that it has sent within the last window. Until it `joins` it is only
    /// counted: it still goes by itself.
    pub async fn join(
        &self,
        link: &mut impl ConnectionLike,
        limit: Limit<'_>,
        member: Member<'_>,
        joins: bool,
        missed: &[Missed],
    ) -> RedisResult<u32> {
        let mut call = limit.call(&self.join);
        call.arg(member.gateway).arg(member.name()).arg(u8::from(joins));
        for missed in missed {
            let left = u64::try_from(missed.left.as_micros()).unwrap_or(u64::MAX);
            call.arg(missed.request).arg(u8::from(missed.in_flight)).arg(left);
        }
        invoke(&call, link).await
    }

    /// This gateway goes; what it has sent still counts.
    pub async fn leave(&self, link: &mut impl ConnectionLike, keys: &str, member: Member<'_>) -> RedisResult<()> {
        let mut goodbye = redis::pipe();
        goodbye.atomic().zrem(format!("{keys}:joined"), member.name()).zrem(format!("{keys}:known"), member.gateway);
        goodbye.query_async(link).await
    }
}

impl Limit<'_> {
    fn call<'s>(&self, script: &'s Script) -> ScriptInvocation<'s> {
        let mut call = script.prepare_invoke();
        // The number of the state's form is in its name: another release neither reads nor spoils it.
        for part in ["state.5", "log", "flying", "joined", "known", "held"] {
            call.key(format!("{}:{part}", self.keys));
        }
        call.arg(clock_arg(self.clock)).arg(self.settings.limit).arg(u8::from(self.settings.learn_limit));
        call.arg(micros(self.settings.window)).arg(micros(self.deadline));
        call
    }
}

impl Member<'_> {
    fn name(&self) -> String {
        format!("{}:{}", self.gateway, self.times)
    }
}

async fn invoke<T: FromRedisValue>(call: &ScriptInvocation<'_>, link: &mut impl ConnectionLike) -> RedisResult<T> {
    call.invoke_async(link).await
}

fn hold(by: u8) -> Hold {
    match by {
        0 => Hold::Requests,
        1 => Hold::Remaining,
        2 => Hold::Pace,
        3 => Hold::Refused,
        _ => Hold::Edge,
    }
}

fn clock_arg(clock: Option<u64>) -> String {
    clock.map(|clock| clock.to_string()).unwrap_or_default()
}

fn nanoseconds(n: i64) -> Option<Duration> {
    u64::try_from(n).ok().map(Duration::from_nanos)
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
