//! Agreement of the scripts with the local limiter: both get the same requests and responses at the same times. The test sets
//! the time of both, so it never waits.

use std::time::Duration;

use calgate::limit_store::redis::scripts::Scripts;
use calgate::limit_store::{AcquireRequest, Acquired, HeartbeatReply, Limit, Member, RequestOutcome};
use calgate::ratelimit::fair_queue::{Flow, Priority};
use calgate::ratelimit::limiter::{BudgetLimiter, Decision, InFlight, Wakeup};
use calgate::ratelimit::usage_headers::{LimitReading, LimitReadings, UpstreamOutcome};
use calgate::ratelimit::{Settings, ThrottleReason};
use calgate::time::MonoTime;
use proptest::prelude::*;
use redis::aio::MultiplexedConnection;
use tokio::runtime::Runtime;

use crate::harness::Redis;
use crate::properties::cases;
use crate::ratelimit::table::limiter::{Limiter, NamedLimit};

const WINDOW: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(30);
const SEED: u64 = 7;
const START: u64 = 1_700_000_000_000_000;

/// An epoch of parts after all others.
const ANY_EPOCH: u64 = 1 << 52;

/// Converts a time of the server's clock to a time of the gateway.
fn tick(at: u64) -> MonoTime {
    MonoTime(at * 1000)
}

/// An event, and the microseconds since the one before.
#[derive(Debug, Clone)]
struct Step(u64, Event);

#[derive(Debug, Clone)]
enum Event {
    Asks { consumer: u64, anyway: bool, waits: bool },
    Turn,
    Answered { flight: usize, verdict: Kind, told: Vec<(bool, u32, u32, u64)> },
    Lost { flight: usize, within_ms: u64 },
    Unsent { flight: usize },
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Passed,
    Unclear,
    Refused(Option<u64>),
    Edge(Option<u64>),
}

fn event() -> impl Strategy<Value = Event> {
    let passed = || Just(Kind::Passed);
    let kind = prop_oneof![
        30 => passed(),
        2 => Just(Kind::Unclear),
        1 => prop::option::of(0..90_u64).prop_map(Kind::Refused),
        1 => prop::option::of(0..90_u64).prop_map(Kind::Edge),
    ];
    let seen = (any::<bool>(), 1..40_u32, 0..40_u32, 0..70_u64);
    prop_oneof![
        8 => (0..4_u64, prop::bool::weighted(0.05), prop::bool::weighted(0.2))
            .prop_map(|(consumer, anyway, waits)| Event::Asks { consumer, anyway, waits }),
        4 => Just(Event::Turn),
        8 => (any::<usize>(), kind, prop::collection::vec(seen, 0..3))
            .prop_map(|(flight, verdict, told)| Event::Answered { flight, verdict, told }),
        1 => (any::<usize>(), 0..40_000_u64).prop_map(|(flight, within_ms)| Event::Lost { flight, within_ms }),
        1 => any::<usize>().prop_map(|flight| Event::Unsent { flight }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pause = prop_oneof![6 => 0..3_000_u64, 6 => 0..2_000_000_u64, 1 => 0..90_000_000_u64];
    prop::collection::vec((pause, event()).prop_map(|(pause, event)| Step(pause, event)), 1..120)
}

/// The scripts and the local limiter, in step.
struct Both<'a> {
    link: &'a mut MultiplexedConnection,
    scripts: &'a Scripts,
    keys: String,
    settings: Settings,
    limiter: BudgetLimiter,
    jitter: fastrand::Rng,
    at: u64,
    asked: u64,
    flights: Vec<(u64, u64, InFlight)>,
}

impl Both<'_> {
    fn limit(&self) -> Limit<'_> {
        let settings = Settings { replicas: 1, ..self.settings };
        Limit { keys: &self.keys, settings, deadline: DEADLINE, clock: Some(self.at) }
    }

    /// Registers the other gateways as cut off: the store knows them, and they are not members.
    async fn register_others(&mut self) {
        let known = format!("{}:known", self.keys);
        let joined = format!("{}:joined", self.keys);
        let mut pipe = redis::pipe();
        // All gateways have given up their parts, because a single gateway reserves none.
        let held = format!("{}:held", self.keys);
        for other in 1..self.settings.replicas {
            pipe.cmd("ZADD").arg(&known).arg(self.at).arg(format!("other-{other}"));
            pipe.cmd("HSET").arg(&held).arg(format!("other-{other}")).arg(0);
        }
        pipe.cmd("HSET").arg(&held).arg("this").arg(0);
        pipe.cmd("ZADD").arg(&known).arg(self.at).arg("this");
        pipe.cmd("ZADD").arg(&joined).arg(self.at).arg("this:1");
        pipe.query_async::<()>(self.link).await.unwrap();
    }

    /// Advances the time by that many microseconds.
    async fn advance(&mut self, pause: u64) {
        self.at += pause;
        self.register_others().await;
        // Both give up requests without a response at their deadline.
        let at = self.at;
        let late = |sent: u64| Duration::from_micros(at.saturating_sub(sent)) >= DEADLINE;
        while let Some(index) = self.flights.iter().position(|&(_, sent, _)| late(sent)) {
            let (_, sent, flight) = self.flights.swap_remove(index);
            self.limiter.mark_lost(&flight, tick(sent).after(DEADLINE));
        }
    }

    async fn apply(&mut self, step: Step) {
        self.advance(step.0).await;
        match step.1 {
            Event::Asks { consumer, anyway, waits } => self.asks(consumer, anyway, waits).await,
            Event::Turn => self.turn().await,
            Event::Answered { flight, verdict, told } => {
                if let Some(flight) = self.take(flight) {
                    self.answered(flight, verdict, &told).await;
                }
            }
            Event::Lost { flight, within_ms } => {
                if let Some((request, _, flight)) = self.take(flight) {
                    let within = Duration::from_millis(within_ms);
                    self.settle(request, RequestOutcome::Lost { within }).await;
                    self.limiter.mark_lost(&flight, tick(self.at).after(within));
                }
            }
            Event::Unsent { flight } => {
                if let Some((request, _, flight)) = self.take(flight) {
                    self.settle(request, RequestOutcome::Unsent).await;
                    self.limiter.mark_unsent(&flight);
                }
            }
        }
    }

    fn take(&mut self, index: usize) -> Option<(u64, u64, InFlight)> {
        let count = self.flights.len();
        (count > 0).then(|| self.flights.swap_remove(index % count))
    }

    async fn settle(&mut self, request: u64, fate: RequestOutcome) -> Option<(ThrottleReason, Option<Duration>)> {
        let (scripts, limit) = (self.scripts, self.limit());
        scripts.settle(&mut self.link.clone(), limit, "this", request, fate).await.unwrap()
    }

    async fn heartbeat(&mut self) -> HeartbeatReply {
        let (scripts, limit, member) = (self.scripts, self.limit(), Member { gateway: "this", times: 1 });
        scripts.heartbeat(&mut self.link.clone(), limit, member, ANY_EPOCH).await.unwrap()
    }

    async fn acquire(&mut self, flow: Option<&Flow>, express: bool, anyway: bool) -> Acquired {
        self.asked += 1;
        let light = self.limiter.light_load(flow);
        let asking = AcquireRequest {
            request: self.asked,
            express,
            waiting: self.limiter.has_waiters(),
            anyway,
            light,
            epoch: ANY_EPOCH,
        };
        let member = Member { gateway: "this", times: 1 };
        let (scripts, limit) = (self.scripts, self.limit());
        scripts.acquire(&mut self.link.clone(), limit, member, asking, None).await.unwrap().0
    }

    async fn asks(&mut self, consumer: u64, anyway: bool, waits: bool) {
        let now = tick(self.at);
        let flow = Flow { key: consumer, weight: 1 + u32::try_from(consumer).unwrap(), priority: Priority::Default };
        // Removes expired requests, as a script does first.
        let _ = self.limiter.status(now);
        self.limiter.record_arrival(&flow, now);
        let express = self.limiter.is_under_fair_share(&flow, now);
        if anyway {
            let theirs = self.acquire(Some(&flow), express, anyway).await;
            let (flight, by) = self.limiter.admit_observed(&flow, now);
            assert_eq!(theirs, Acquired::Go { ahead: None, by });
            self.flights.push((self.asked, self.at, flight));
            return;
        }
        // The gateway does not ask the store for a request that waits behind others.
        let lines_up = self.limiter.has_waiters() && !express;
        let theirs = if lines_up { None } else { Some(self.acquire(Some(&flow), express, anyway).await) };
        let patience = if waits && !express { Duration::from_secs(86_400) } else { Duration::ZERO };
        let ours = match self.limiter.admit(&flow, patience, now) {
            Decision::Admit(flight) => {
                self.flights.push((self.asked, self.at, flight));
                None
            }
            Decision::Reject(held) => Some(held.by),
            // The gateway does not ask the store for a request that waits for a response.
            Decision::Queue(_, by) if !patience.is_zero() && self.limiter.has_waiters() => Some(by),
            Decision::Queue(ticket, by) => {
                self.limiter.cancel(ticket, &flow);
                Some(by)
            }
        };
        if express && matches!(theirs, Some(Acquired::Held { .. })) {
            // The store holds free capacity for the express request for this long.
            self.at += 150_000;
        }
        let theirs = match theirs {
            None => return assert!(ours.is_some()),
            Some(Acquired::Go { .. }) => None,
            Some(Acquired::Held { by, .. }) => Some(by),
            Some(other) => panic!("{other:?}"),
        };
        assert_eq!(theirs, ours, "at {} of {}: {:?}", self.at - START, self.asked, self.limiter);
    }

    /// Gives the next request of the fair queue its turn.
    async fn turn(&mut self) {
        if !self.limiter.has_waiters() {
            return;
        }
        // Removes expired requests, as above.
        let _ = self.limiter.status(tick(self.at));
        let theirs = self.acquire(None, false, false).await;
        let ours = self.limiter.poll_next(tick(self.at));
        match (&theirs, ours) {
            (Acquired::Go { .. }, Wakeup::Admit(_, flight)) => self.flights.push((self.asked, self.at, flight)),
            (Acquired::Held { .. }, Wakeup::At(_) | Wakeup::Idle) => {}
            (_, ours) => panic!("{theirs:?} {ours:?} at {}: {:?}", self.at - START, self.limiter),
        }
    }

    async fn answered(&mut self, flight: (u64, u64, InFlight), kind: Kind, told: &[(bool, u32, u32, u64)]) {
        let seen = |&(first, limit, remaining, reset): &(bool, u32, u32, u64)| LimitReading {
            name: if first { 0xcbf2_9ce4_8422_2325 } else { 1 },
            limit: (limit > 5).then_some(limit),
            remaining: remaining.min(limit),
            reset: Duration::from_secs(reset),
        };
        let told = LimitReadings { limits: told.iter().map(seen).collect(), has_implausible: false };
        let seconds = |n: Option<u64>| n.map(Duration::from_secs);
        let verdict = match kind {
            Kind::Passed => UpstreamOutcome::Passed,
            Kind::Unclear => UpstreamOutcome::Unclear,
            Kind::Refused(after) => UpstreamOutcome::Refused { retry_after: seconds(after) },
            Kind::Edge(after) => UpstreamOutcome::Edge { retry_after: seconds(after) },
        };
        let jitter = if matches!(verdict, UpstreamOutcome::Refused { .. }) { self.draw() } else { Duration::ZERO };
        let ago = Duration::from_micros(self.at - flight.1);
        let fate = RequestOutcome::Answered { ago, verdict, told: told.clone(), jitter };
        let theirs = self.settle(flight.0, fate).await;
        let ours = self.limiter.record_response(&flight.2, verdict, &told, tick(self.at));
        assert_eq!(theirs.map(|(by, _)| by), ours.map(|held| held.by));
        if let (Some((_, Some(theirs))), Some(ours)) = (theirs, ours) {
            assert_eq!(theirs, ours.wait);
        }
    }

    /// Draws the jitter that the limiter draws.
    fn draw(&mut self) -> Duration {
        Duration::from_nanos(self.jitter.u64(..u64::try_from(WINDOW.as_nanos() / 32).unwrap()))
    }
}

/// Server and connection for all cases of a test.
pub(super) struct Bench {
    _redis: Redis,
    pub(super) runtime: Runtime,
    pub(super) link: MultiplexedConnection,
    pub(super) scripts: Scripts,
}

impl Bench {
    pub(super) fn start() -> Self {
        let redis = Redis::start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = redis::Client::open(redis.url()).unwrap();
        let link = runtime.block_on(client.get_multiplexed_async_connection()).unwrap();
        Self { _redis: redis, runtime, link, scripts: Scripts::default() }
    }

    /// Returns the scripts and the limiter without any request.
    fn both(&mut self, settings: Settings) -> (&Runtime, Both<'_>) {
        let both = Both {
            link: &mut self.link,
            scripts: &self.scripts,
            keys: "calgate:{test}:main".to_owned(),
            settings,
            limiter: BudgetLimiter::new(settings, SEED),
            jitter: fastrand::Rng::with_seed(SEED),
            at: START,
            asked: 0,
            flights: Vec::new(),
        };
        (&self.runtime, both)
    }

    pub(super) fn empty(&mut self) {
        let link = &mut self.link;
        self.runtime.block_on(async { redis::cmd("FLUSHALL").query_async::<()>(link).await }).unwrap();
    }
}

pub(super) fn config() -> ProptestConfig {
    ProptestConfig { max_shrink_iters: 200, ..cases(128) }
}

#[test]
fn the_scripts_decide_as_the_local_limiter() {
    let bench = std::cell::RefCell::new(Bench::start());
    proptest!(config(), |(limit in 1..30_u32, replicas in 1..6_u32, learn_limit: bool, steps in steps())| {
        let bench = &mut *bench.borrow_mut();
        bench.empty();
        let settings = Settings { limit, window: WINDOW, replicas, learn_limit };
        let (runtime, mut both) = bench.both(settings);
        runtime.block_on(async {
            for step in steps {
                both.apply(step).await;
            }
        });
    });
}

/// An event at a simulated Cal.com.
#[derive(Debug, Clone, Copy)]
enum Hit {
    Asks(u64),
    IsAnswered(usize),
    /// A request of another client of the credential.
    Others,
}

fn hits() -> impl Strategy<Value = Vec<(u64, Hit)>> {
    let who = prop_oneof![
        5 => (0..3_u64).prop_map(Hit::Asks),
        5 => any::<usize>().prop_map(Hit::IsAnswered),
        2 => Just(Hit::Others),
    ];
    let pause = prop_oneof![20 => 0..900_000_u64, 1 => 0..15_000_000_u64];
    prop::collection::vec((pause, who), 300..600)
}

#[test]
fn the_scripts_detect_other_clients_as_the_local_limiter() {
    let bench = std::cell::RefCell::new(Bench::start());
    let config = ProptestConfig { max_shrink_iters: 200, ..cases(32) };
    proptest!(config, |(limit in 40..120_u32, hits in hits())| {
        let bench = &mut *bench.borrow_mut();
        bench.empty();
        let settings = Settings { limit, window: WINDOW, replicas: 1, learn_limit: false };
        let (runtime, mut both) = bench.both(settings);
        let named = NamedLimit { name: "Default".to_owned(), limit, window: WINDOW, block: WINDOW };
        let mut cal = Limiter::new(vec![named], true);
        runtime.block_on(async {
            for (pause, who) in hits {
                both.advance(pause).await;
                let now = Duration::from_micros(both.at);
                match who {
                    Hit::Asks(consumer) => both.asks(consumer, false, false).await,
                    Hit::Others => {
                        cal.hit(now);
                        assert_eq!(both.heartbeat().await.foreign, both.limiter.status(tick(both.at)).foreign);
                    }
                    Hit::IsAnswered(flight) => {
                        if let Some(flight) = both.take(flight) {
                            let verdict = cal.hit(now);
                            let kind = if verdict.refused { Kind::Refused(None) } else { Kind::Passed };
                            let told = verdict.standings.iter().map(|told| (true, told.limit, told.remaining, told.reset_seconds));
                            both.answered(flight, kind, &told.collect::<Vec<_>>()).await;
                        }
                    }
                }
            }
        });
    });
}
