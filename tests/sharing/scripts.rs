//! What the scripts do beside deciding: who may ask, what becomes of who does not ask any more, and what stays in the store.

use std::time::Duration;

use calgate::budget::Settings;
use calgate::budget::headers::{Seen, Told, Verdict};
use calgate::limit::Quota;
use calgate::sharing::scripts::{Acquired, Asking, Charge, Fate, Limit, Member, Missed, Scripts};
use redis::aio::MultiplexedConnection;
use tokio::runtime::Runtime;

use crate::harness::Redis;

const START: u64 = 1_700_000_000_000_000;
const SECOND: u64 = 1_000_000;

/// One limit of two requests in 60 s, in a store of its own.
struct Bench {
    _redis: Redis,
    runtime: Runtime,
    link: MultiplexedConnection,
    scripts: Scripts,
    requests: u64,
}

const A: Member<'static> = Member { gateway: "a", times: 1 };
const B: Member<'static> = Member { gateway: "b", times: 1 };

fn limit(at: u64) -> Limit<'static> {
    let window = Duration::from_secs(60);
    let settings = Settings { limit: 2, window, replicas: 1, learn_limit: false };
    Limit { keys: "calgate:{x}:main", settings, deadline: Duration::from_secs(30), clock: Some(at) }
}

impl Bench {
    fn start() -> Self {
        let redis = Redis::start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = redis::Client::open(redis.url()).unwrap();
        let link = runtime.block_on(client.get_multiplexed_async_connection()).unwrap();
        Self { _redis: redis, runtime, link, scripts: Scripts::default(), requests: 0 }
    }

    fn join(&mut self, at: u64, member: Member<'_>, missed: &[Missed]) -> u32 {
        let (scripts, link) = (&self.scripts, &mut self.link);
        self.runtime.block_on(scripts.join(link, limit(at), member, true, missed)).unwrap()
    }

    /// The request's number, if it may go.
    fn acquire(&mut self, at: u64, member: Member<'_>) -> Result<u64, Acquired> {
        self.requests += 1;
        let asking = Asking { request: self.requests, express: true, waiting: false, anyway: false, light: 0 };
        let (scripts, link) = (&self.scripts, &mut self.link);
        match self.runtime.block_on(scripts.acquire(link, limit(at), member, asking, None)).unwrap() {
            Acquired::Go { .. } => Ok(self.requests),
            other => Err(other),
        }
    }

    fn settle(&mut self, at: u64, member: Member<'_>, request: u64, fate: Fate) {
        let (scripts, link) = (&self.scripts, &mut self.link);
        self.runtime.block_on(scripts.settle(link, limit(at), member.gateway, request, fate)).unwrap();
    }

    fn heartbeat(&mut self, at: u64, member: Member<'_>) -> calgate::sharing::scripts::Heard {
        let (scripts, link) = (&self.scripts, &mut self.link);
        self.runtime.block_on(scripts.heartbeat(link, limit(at), member)).unwrap()
    }
}

fn answered(remaining: u32) -> Fate {
    let seen = Seen { name: 1, limit: Some(2), remaining, reset: Duration::from_secs(60) };
    let told = Told { limits: [seen].into_iter().collect(), absurd: false };
    Fate::Answered { ago: Duration::ZERO, verdict: Verdict::Passed, told, jitter: Duration::ZERO }
}

#[test]
fn who_has_not_joined_is_told_so_and_charged_nothing() {
    let mut bench = Bench::start();
    assert_eq!(bench.acquire(START, A), Err(Acquired::Stranger));
    bench.join(START, A, &[]);
    assert!(bench.acquire(START, A).is_ok() && bench.acquire(START, A).is_ok());
    assert!(matches!(bench.acquire(START, A), Err(Acquired::Held { .. })));
}

#[test]
fn what_comes_late_under_an_older_membership_is_refused() {
    let mut bench = Bench::start();
    bench.join(START, A, &[]);
    bench.join(START, Member { times: 2, ..A }, &[]);
    assert_eq!(bench.acquire(START, A), Err(Acquired::Stranger));
    assert!(bench.acquire(START, Member { times: 2, ..A }).is_ok());
}

#[test]
fn who_dies_in_mid_request_is_charged_until_its_deadline_and_a_window() {
    let mut bench = Bench::start();
    bench.join(START, A, &[]);
    assert!(bench.acquire(START, A).is_ok() && bench.acquire(START, A).is_ok());
    // It is gone; another one comes.
    bench.join(START + SECOND, B, &[]);
    let (almost, over) = (START + 90 * SECOND, START + 90 * SECOND + 60_000);
    assert!(matches!(bench.acquire(almost, B), Err(Acquired::Held { .. })));
    bench.heartbeat(over, B);
    assert!(bench.acquire(over, B).is_ok());
}

#[test]
fn who_comes_back_brings_what_it_has_sent_meanwhile_and_nothing_twice() {
    let mut bench = Bench::start();
    bench.join(START, A, &[]);
    let request = bench.acquire(START, A).unwrap();
    // While it could not be asked, the request was answered, and another one sent.
    let missed = [
        Missed { request: u64::MAX, in_flight: false, left: Duration::from_secs(59) },
        Missed { request: 77, in_flight: true, left: Duration::from_secs(29) },
    ];
    let member = Member { times: 2, ..A };
    bench.join(START + SECOND, member, &missed);
    assert!(matches!(bench.acquire(START + SECOND, member), Err(Acquired::Held { .. })));
    // What it had there before is not counted beside.
    bench.settle(START + 2 * SECOND, member, request, Fate::Unsent);
    bench.settle(START + 2 * SECOND, member, 77, Fate::Unsent);
    assert!(bench.acquire(START + 2 * SECOND, member).is_ok());
}

#[test]
fn who_is_cut_off_is_left_its_part() {
    let mut bench = Bench::start();
    bench.join(START, A, &[]);
    bench.join(START, B, &[]);
    let heard = bench.heartbeat(START + SECOND, A);
    assert_eq!((heard.gateways, heard.members), (2, 2));
    // B is not heard any more. In a window's tail, which here is all of it, A has one request, and B the other.
    let later = START + 5 * SECOND;
    let heard = bench.heartbeat(later, A);
    assert_eq!((heard.gateways, heard.members), (2, 1));
    let request = bench.acquire(later, A).unwrap();
    bench.settle(later, A, request, answered(1));
    assert!(matches!(bench.acquire(later, A), Err(Acquired::Held { .. })));
}

#[test]
fn a_heartbeat_tells_what_is_left_of_cal_coms_window() {
    let mut bench = Bench::start();
    bench.join(START, A, &[]);
    bench.join(START, B, &[]);
    let request = bench.acquire(START, A).unwrap();
    bench.settle(START, A, request, answered(1));
    let heard = bench.heartbeat(START, B);
    let [seen] = heard.windows.limits.as_slice() else { panic!("{heard:?}") };
    assert_eq!((seen.name, seen.limit, seen.remaining), (1, Some(2), 1));
}

#[test]
fn every_key_has_the_credentials_tag_and_an_end() {
    let mut bench = Bench::start();
    bench.join(START, A, &[]);
    let request = bench.acquire(START, A).unwrap();
    bench.acquire(START, A).unwrap();
    bench.settle(START, A, request, answered(1));
    let charge = Charge { key: "calgate:{x}:bucket:billing", quota: Quota::per_minute(120, 120) };
    let (scripts, link) = (&bench.scripts, &mut bench.link);
    let keys = bench.runtime.block_on(async {
        assert!(scripts.charge(link, charge, None).await.unwrap().is_ok());
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(link).await.unwrap();
        for key in &keys {
            let left: i64 = redis::cmd("PTTL").arg(key).query_async(link).await.unwrap();
            assert!(left > 0, "{key} never ends");
        }
        keys
    });
    assert_eq!(keys.len(), 6, "{keys:?}");
    assert!(keys.iter().all(|key| key.starts_with("calgate:{x}:")), "{keys:?}");
}
