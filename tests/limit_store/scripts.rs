//! The Lua scripts: memberships, replays, gateways that are cut off, and the keys in the store.

use std::time::Duration;

use calgate::limit_store::backlog::UsageReport;
use calgate::limit_store::redis::scripts::Scripts;
use calgate::limit_store::{
    AcquireRequest, Acquired, Charge, Limit, Member, OpenWindow, ReplayedRequest, RequestOutcome,
};
use calgate::ratelimit::usage_headers::{LimitReading, LimitReadings, UpstreamOutcome};
use calgate::ratelimit::{Quota, Settings, ThrottleReason};
use redis::aio::MultiplexedConnection;
use tokio::runtime::Runtime;

use crate::harness::Redis;

pub(super) const START: u64 = 1_700_000_000_000_000;
pub(super) const SECOND: u64 = 1_000_000;

/// One limit per 60 s, of two requests by default, in its own store.
pub(super) struct Bench {
    pub(super) limit: u32,
    _redis: Redis,
    pub(super) runtime: Runtime,
    pub(super) link: MultiplexedConnection,
    pub(super) scripts: Scripts,
    requests: u64,
}

pub(super) const A: Member<'static> = Member { gateway: "a", times: 1 };
pub(super) const B: Member<'static> = Member { gateway: "b", times: 1 };

/// An epoch of parts after all others. A gateway that confirms it holds no more than the current part.
const ANY_EPOCH: u64 = 1 << 52;

const TOKEN: Duration = Duration::from_secs(1);

pub(super) fn limit(limit: u32, at: u64) -> Limit<'static> {
    let window = Duration::from_secs(60);
    let settings = Settings { limit, window, replicas: 1, learn_limit: false };
    Limit { keys: "calgate:{x}:main", settings, deadline: Duration::from_secs(30), clock: Some(at) }
}

impl Bench {
    /// Starts a bench with that limit.
    pub(super) fn of(limit: u32) -> Self {
        Self { limit, ..Self::start() }
    }

    fn start() -> Self {
        let redis = Redis::start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = redis::Client::open(redis.url()).unwrap();
        let link = runtime.block_on(client.get_multiplexed_async_connection()).unwrap();
        Self { limit: 2, _redis: redis, runtime, link, scripts: Scripts::default(), requests: 0 }
    }

    pub(super) fn join(&mut self, at: u64, member: Member<'_>, replayed: &[ReplayedRequest]) -> u32 {
        self.join_as(at, member, true, replayed)
    }

    fn join_as(&mut self, at: u64, member: Member<'_>, joins: bool, replayed: &[ReplayedRequest]) -> u32 {
        let (scripts, link) = (&self.scripts, &mut self.link);
        self.runtime.block_on(scripts.join(link, limit(self.limit, at), member, joins, replayed)).unwrap()
    }

    /// Returns the number of the request if the store admits it.
    pub(super) fn acquire(&mut self, at: u64, member: Member<'_>) -> Result<u64, Acquired> {
        match self.acquire_with(at, member, None) {
            Acquired::Go { .. } => Ok(self.requests),
            other => Err(other),
        }
    }

    fn acquire_with(&mut self, at: u64, member: Member<'_>, charge: Option<Charge<'_>>) -> Acquired {
        self.requests += 1;
        let asking = AcquireRequest {
            request: self.requests,
            express: true,
            waiting: false,
            anyway: false,
            light: 0,
            epoch: ANY_EPOCH,
        };
        let (scripts, link) = (&self.scripts, &mut self.link);
        self.runtime.block_on(scripts.acquire(link, limit(self.limit, at), member, asking, charge)).unwrap().0
    }

    /// Asks for a request that waits in the fair queue.
    fn turn(&mut self, at: u64, member: Member<'_>) -> Acquired {
        self.requests += 1;
        let asking = AcquireRequest {
            request: self.requests,
            express: false,
            waiting: true,
            anyway: false,
            light: 0,
            epoch: ANY_EPOCH,
        };
        let (scripts, link) = (&self.scripts, &mut self.link);
        self.runtime.block_on(scripts.acquire(link, limit(self.limit, at), member, asking, None)).unwrap().0
    }

    /// Charges a bucket of `burst` tokens, which refills one in a second.
    fn charge(&mut self, at: u64, burst: u32) -> Result<Duration, Duration> {
        let (scripts, link) = (&self.scripts, &mut self.link);
        self.runtime.block_on(scripts.charge(link, bucket(burst), Some(at))).unwrap()
    }

    /// Reports tokens that were charged without the store.
    fn report(&mut self, at: u64, burst: u32, tokens: u32) {
        let Charge { key, quota } = bucket(burst);
        let usage = UsageReport { key: key.to_owned(), quota, ahead: TOKEN * tokens };
        let (scripts, link) = (&self.scripts, &mut self.link);
        self.runtime.block_on(scripts.report(link, &usage, Some(at))).unwrap();
    }

    pub(super) fn settle(&mut self, at: u64, member: Member<'_>, request: u64, outcome: RequestOutcome) {
        let (scripts, link) = (&self.scripts, &mut self.link);
        self.runtime.block_on(scripts.settle(link, limit(self.limit, at), member.gateway, request, outcome)).unwrap();
    }

    pub(super) fn heartbeat(&mut self, at: u64, member: Member<'_>) -> calgate::limit_store::HeartbeatReply {
        let (scripts, link) = (&self.scripts, &mut self.link);
        self.runtime.block_on(scripts.heartbeat(link, limit(self.limit, at), member, ANY_EPOCH)).unwrap()
    }
}

fn bucket(burst: u32) -> Charge<'static> {
    Charge { key: "calgate:{x}:bucket:billing", quota: Quota::per_minute(60, burst) }
}

fn answered(remaining: u32) -> RequestOutcome {
    answered_of(2, remaining)
}

fn answered_of(limit: u32, remaining: u32) -> RequestOutcome {
    let seen = LimitReading { name: 1, limit: Some(limit), remaining, reset: Duration::from_secs(60) };
    let told = LimitReadings { limits: [seen].into_iter().collect(), has_implausible: false };
    RequestOutcome::Answered { ago: Duration::ZERO, verdict: UpstreamOutcome::Passed, told, jitter: Duration::ZERO }
}

#[test]
fn rejects_a_gateway_that_has_not_joined() {
    let mut bench = Bench::start();
    assert_eq!(bench.acquire(START, A), Err(Acquired::UnknownMember));
    bench.join(START, A, &[]);
    assert!(bench.acquire(START, A).is_ok() && bench.acquire(START, A).is_ok());
    assert!(matches!(bench.acquire(START, A), Err(Acquired::Held { .. })));
}

#[test]
fn rejects_late_calls_of_an_older_membership() {
    let mut bench = Bench::start();
    bench.join(START, A, &[]);
    bench.join(START, Member { times: 2, ..A }, &[]);
    assert_eq!(bench.acquire(START, A), Err(Acquired::UnknownMember));
    assert!(bench.acquire(START, Member { times: 2, ..A }).is_ok());
}

#[test]
fn holds_free_capacity_for_express_requests_and_paces_the_others() {
    let mut bench = Bench::of(800);
    bench.join(START, A, &[]);
    let is_go = |acquired: Acquired| matches!(acquired, Acquired::Go { .. });
    let is_paced = |acquired: Acquired| matches!(acquired, Acquired::Held { by: ThrottleReason::Pace, .. });
    assert!(is_go(bench.turn(START, A)) && is_go(bench.turn(START, A)), "there is plenty");
    let silent = LimitReadings { limits: smallvec::SmallVec::new(), has_implausible: false };
    for request in 1..=800 {
        if request > 2 {
            bench.acquire(START, A).unwrap();
        }
        bench.settle(
            START,
            A,
            request,
            RequestOutcome::answered(Duration::ZERO, UpstreamOutcome::Passed, silent.clone()),
        );
    }
    let (full, millisecond) = (START + 60 * SECOND, SECOND / 1000);
    assert!(matches!(bench.acquire(full, B), Err(Acquired::UnknownMember)));
    assert!(matches!(bench.acquire(full, A), Err(Acquired::Held { by: ThrottleReason::Requests, .. })));
    assert!(is_paced(bench.turn(full + 149 * millisecond, A)), "all is free, and held for express requests");
    assert!(is_go(bench.turn(full + 151 * millisecond, A)));
    assert!(is_paced(bench.turn(full + 152 * millisecond, A)), "half is free, and not plenty");
    bench.acquire(full + 152 * millisecond, A).unwrap();
    assert!(is_go(bench.turn(full + 61 * SECOND, A)) && is_go(bench.turn(full + 61 * SECOND, A)), "plenty again");
}

#[test]
fn a_request_of_a_dead_gateway_counts_for_a_deadline_and_a_window() {
    let mut bench = Bench::start();
    bench.join(START, A, &[]);
    assert!(bench.acquire(START, A).is_ok() && bench.acquire(START, A).is_ok());
    // A is gone, and B joins.
    bench.join(START + SECOND, B, &[]);
    let (almost, over) = (START + 90 * SECOND, START + 90 * SECOND + 60_000);
    assert!(matches!(bench.acquire(almost, B), Err(Acquired::Held { .. })));
    bench.heartbeat(over, B);
    assert!(bench.acquire(over, B).is_ok());
}

#[test]
fn a_join_replaces_the_requests_of_the_gateway() {
    let mut bench = Bench::start();
    bench.join(START, A, &[]);
    bench.acquire(START, A).unwrap();
    // While the store was unavailable, the request was answered, and the gateway sent another one.
    let replayed = [
        ReplayedRequest { request: u64::MAX, in_flight: false, left: Duration::from_secs(59) },
        ReplayedRequest { request: 77, in_flight: true, left: Duration::from_secs(29) },
    ];
    let member = Member { times: 2, ..A };
    bench.join(START + SECOND, member, &replayed);
    assert!(matches!(bench.acquire(START + SECOND, member), Err(Acquired::Held { .. })));
    // The earlier request no longer counts.
    bench.settle(START + 2 * SECOND, member, 77, RequestOutcome::Unsent);
    assert!(bench.acquire(START + 2 * SECOND, member).is_ok());
}

#[test]
fn a_call_of_acquire_keeps_the_membership_alive() {
    let mut bench = Bench::start();
    bench.join(START, A, &[]);
    bench.join(START, B, &[]);
    bench.acquire(START + SECOND, A).unwrap();
    assert_eq!(bench.heartbeat(START + 2 * SECOND, B).members, 2);
}

#[test]
fn counts_a_gateway_that_still_decides_locally() {
    let mut bench = Bench::start();
    bench.join(START, A, &[]);
    assert_eq!(bench.join_as(START, B, false, &[]), 2);
    let heard = bench.heartbeat(START, B);
    assert_eq!((heard.is_member, heard.gateways, heard.members), (false, 2, 1));
    assert_eq!(bench.acquire(START, B), Err(Acquired::UnknownMember));
}

#[test]
fn an_unsent_request_does_not_count_even_if_its_outcome_is_late() {
    let mut bench = Bench::start();
    bench.join(START, A, &[]);
    let request = bench.acquire(START, A).unwrap();
    let late = START + 31 * SECOND;
    bench.heartbeat(late, A);
    bench.settle(late, A, request, RequestOutcome::Unsent);
    assert!(bench.acquire(late, A).is_ok() && bench.acquire(late, A).is_ok());
}

#[test]
fn a_call_charges_the_bucket_once_even_if_the_budget_denies_it() {
    let mut bench = Bench::of(1);
    bench.join(START, A, &[]);
    let asks = |bench: &mut Bench| bench.acquire_with(START, A, Some(bucket(2)));
    assert!(matches!(asks(&mut bench), Acquired::Go { ahead: Some(TOKEN), .. }));
    let held = asks(&mut bench);
    assert!(matches!(held, Acquired::Held { ahead: Some(ahead), .. } if ahead == TOKEN * 2), "{held:?}");
    assert_eq!(asks(&mut bench), Acquired::Empty { ahead: TOKEN * 2 });
}

#[test]
fn a_report_leaves_a_bucket_empty_at_worst() {
    let mut bench = Bench::start();
    assert_eq!(bench.charge(START, 4), Ok(TOKEN));
    bench.report(START, 4, 2);
    assert_eq!(bench.charge(START, 4), Ok(TOKEN * 4));
    bench.report(START, 4, 100);
    assert_eq!(bench.charge(START, 4), Err(TOKEN * 4));
    assert_eq!(bench.charge(START + SECOND, 4), Ok(TOKEN * 4));
}

#[test]
fn a_report_under_a_smaller_tier_returns_no_tokens() {
    let mut bench = Bench::start();
    bench.report(START, 10, 10);
    bench.report(START, 4, 1);
    assert_eq!(bench.charge(START, 10), Err(TOKEN * 10));
}

#[test]
fn the_store_reserves_the_share_of_a_gateway_that_is_cut_off() {
    let mut bench = Bench::start();
    bench.join(START, A, &[]);
    bench.join(START, B, &[]);
    let heard = bench.heartbeat(START + SECOND, A);
    assert_eq!((heard.gateways, heard.members), (2, 2));
    // B sends no more heartbeats. In the tail of a window, which is all of it here, A and B have one request each.
    let later = START + 5 * SECOND;
    let heard = bench.heartbeat(later, A);
    assert_eq!((heard.gateways, heard.members), (2, 1));
    let request = bench.acquire(later, A).unwrap();
    bench.settle(later, A, request, answered(1));
    assert!(matches!(bench.acquire(later, A), Err(Acquired::Held { .. })));
}

/// There was no tail before, so it is unknown which requests were in it. All of them count.
#[test]
fn requests_before_a_cut_off_count_in_the_tail() {
    let mut bench = Bench::of(16);
    bench.join(START, A, &[]);
    bench.join(START, B, &[]);
    for remaining in [4, 3] {
        let request = bench.acquire(START, A).unwrap();
        bench.settle(START, A, request, answered_of(16, remaining));
    }
    assert!(matches!(bench.acquire(START + 5 * SECOND, A), Err(Acquired::Held { by: ThrottleReason::Remaining, .. })));
}

#[test]
fn requests_of_a_gateway_that_was_cut_off_are_not_those_of_other_clients() {
    let mut bench = Bench::of(16);
    bench.join(START, A, &[]);
    let used = |bench: &mut Bench, remaining: [u32; 2]| {
        for remaining in remaining {
            // The store gives up the part of A for its own request after A has confirmed that.
            let request = bench.acquire(START, A).or_else(|_| bench.acquire(START, A)).unwrap();
            bench.settle(START, A, request, answered_of(16, remaining));
        }
    };
    // The store counts B, which decides locally.
    bench.join_as(START, B, false, &[]);
    used(&mut bench, [15, 10]);
    assert_eq!(bench.heartbeat(START, A).foreign, 0, "there are two gateways");
    bench.join(START, B, &[]);
    assert_eq!(bench.heartbeat(START, A).foreign, 0, "B sent the four requests between");
    used(&mut bench, [9, 5]);
    assert_eq!(bench.heartbeat(START, A).foreign, 3, "both gateways are members, and sent none of them");
}

#[test]
fn a_heartbeat_subtracts_requests_in_flight() {
    let mut bench = Bench::of(16);
    bench.join(START, A, &[]);
    let request = bench.acquire(START, A).unwrap();
    bench.acquire(START, A).unwrap();
    bench.settle(START, A, request, answered_of(16, 4));
    assert_eq!(bench.heartbeat(START, A).windows[0].seen.remaining, 3);
}

#[test]
fn a_heartbeat_reports_the_window_of_cal_com() {
    let mut bench = Bench::start();
    bench.join(START, A, &[]);
    bench.join(START, B, &[]);
    let request = bench.acquire(START, A).unwrap();
    bench.settle(START, A, request, answered(1));
    let heard = bench.heartbeat(START, B);
    let [OpenWindow { seen, .. }] = heard.windows.as_slice() else { panic!("{heard:?}") };
    assert_eq!((seen.name, seen.limit, seen.remaining), (1, Some(2), 1));
}

#[test]
fn every_key_has_the_hash_tag_and_expires() {
    let mut bench = Bench::start();
    bench.join(START, A, &[]);
    let request = bench.acquire(START, A).unwrap();
    bench.acquire(START, A).unwrap();
    bench.settle(START, A, request, answered(1));
    // The bucket is full in an hour, and its key lasts until then.
    bench.report(START, 3600, 3600);
    let link = &mut bench.link;
    let keys = bench.runtime.block_on(async {
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(link).await.unwrap();
        for key in &keys {
            let left: i64 = redis::cmd("PTTL").arg(key).query_async(link).await.unwrap();
            let needed = if key.contains(":bucket:") { 3_000_000 } else { 0 };
            assert!(left > needed, "{key} ends in {left} ms");
        }
        keys
    });
    assert_eq!(keys.len(), 6, "{keys:?}");
    assert!(keys.iter().all(|key| key.starts_with("calgate:{x}:")), "{keys:?}");
}
