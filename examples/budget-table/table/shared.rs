//! Gateways that share a limit store: the Lua scripts decide, on a real server that takes the time of the simulation.
//!
//! This file repeats what `budget` does between a request, its limiter and the store. The store answers at once.

#![allow(clippy::expect_used, reason = "without its store the simulation cannot go on")]

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use calgate::limit_store::redis::scripts::Scripts;
use calgate::limit_store::{AcquireRequest, Acquired, Limit, Member, RequestOutcome};
use calgate::ratelimit::authority::CachedDenial;
use calgate::ratelimit::fair_queue::{Flow, Ticket};
use calgate::ratelimit::limiter::{BudgetLimiter, Decision, InFlight, Wakeup};
use calgate::ratelimit::{Settings, ThrottleReason};
use calgate::time::MonoTime;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::runtime::Runtime;

use super::cell::{Cell, WINDOW};
use super::gateway::{Gateway, PATIENCE, Said};

/// Clock of the server at the start of the simulation, in microseconds since 1970.
const EPOCH: u64 = 1_700_000_000_000_000;
const DEADLINE: Duration = Duration::from_secs(30);
const BEAT: Duration = Duration::from_millis(500);
const KEYS: &str = "calgate:{table}:main";
const JITTER_NS: u64 = 8_000_000;

/// Store with its gateways.
pub struct Store {
    runtime: Runtime,
    link: MultiplexedConnection,
    scripts: Scripts,
    settings: Settings,
    gateways: Vec<String>,
    next_beat: MonoTime,
    /// Last reported usage by other clients.
    foreign: u32,
    /// Epoch of the parts that all gateways know.
    epoch: u64,
}

/// Gateway of the simulation.
pub struct Shared {
    store: Rc<RefCell<Store>>,
    index: usize,
    limiter: BudgetLimiter,
    waiting: BTreeMap<Ticket, usize>,
    /// Names of the requests in the store.
    names: HashMap<usize, u64>,
    asked: u64,
}

/// All of `cell`'s gateways, on an empty store on `port` of this limiter.
pub fn gateways(cell: &Cell, port: u16) -> redis::RedisResult<Vec<Gateway>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = redis::Client::open(("127.0.0.1", port))?;
    // The timeout is long, because a busy machine may delay a call.
    let patient = AsyncConnectionConfig::new().set_response_timeout(None);
    let mut link = runtime.block_on(client.get_multiplexed_async_connection_with_config(&patient))?;
    runtime.block_on(redis::cmd("FLUSHALL").query_async::<()>(&mut link))?;
    let settings = Settings { limit: cell.limit, window: WINDOW, replicas: 1, learn_limit: false };
    let gateways = (0..cell.gateways).map(|index| format!("g{index}")).collect();
    let (scripts, next_beat) = (Scripts::default(), MonoTime::default());
    let store = Store { runtime, link, scripts, settings, gateways, next_beat, foreign: 0, epoch: 0 };
    for gateway in &store.gateways {
        let (link, member) = (&mut store.link.clone(), Member { gateway, times: 1 });
        store.runtime.block_on(store.scripts.join(link, store.limit(MonoTime::default()), member, true, &[]))?;
    }
    let store = Rc::new(RefCell::new(store));
    let gateway = |index: u32| {
        let mut limiter = BudgetLimiter::new(settings, u64::from(index) + 1);
        limiter.enter_shared_mode(cell.gateways);
        let (store, waiting, names) = (store.clone(), BTreeMap::new(), HashMap::new());
        Gateway::Shared(Box::new(Shared { store, index: index as usize, limiter, waiting, names, asked: 0 }))
    };
    Ok((0..cell.gateways).map(gateway).collect())
}

impl Store {
    fn limit(&self, now: MonoTime) -> Limit<'static> {
        Limit { keys: KEYS, settings: self.settings, deadline: DEADLINE, clock: Some(EPOCH + now.0 / 1000) }
    }

    /// Sends the heartbeats of all gateways, twice per second.
    fn beat(&mut self, now: MonoTime) {
        while self.next_beat <= now {
            let (limit, mut epoch) = (self.limit(self.next_beat), self.epoch);
            for gateway in &self.gateways {
                let member = Member { gateway, times: 1 };
                let call = self.scripts.heartbeat(&mut self.link, limit, member, self.epoch);
                let heard = self.runtime.block_on(call).expect("the store answers");
                (self.foreign, epoch) = (heard.foreign, heard.part.epoch);
            }
            self.epoch = epoch;
            self.next_beat = self.next_beat.after(BEAT);
        }
    }

    fn acquire(&mut self, index: usize, asking: AcquireRequest, now: MonoTime) -> Acquired {
        self.beat(now);
        let (limit, member) = (self.limit(now), Member { gateway: &self.gateways[index], times: 1 });
        let asking = AcquireRequest { epoch: self.epoch, ..asking };
        let call = self.scripts.acquire(&mut self.link, limit, member, asking, None);
        self.runtime.block_on(call).expect("the store answers").0
    }

    fn settle(&mut self, index: usize, request: u64, fate: RequestOutcome, now: MonoTime) {
        self.beat(now);
        let limit = self.limit(now);
        let call = self.scripts.settle(&mut self.link, limit, &self.gateways[index], request, fate);
        self.runtime.block_on(call).expect("the store answers");
    }
}

impl Shared {
    /// Returns the local state machine of the gateway.
    pub fn limiter(&mut self) -> &mut BudgetLimiter {
        &mut self.limiter
    }

    /// Decides about a new request.
    pub fn ask(&mut self, request: usize, flow: &Flow, now: MonoTime) -> Said {
        self.limiter.record_arrival(flow, now);
        loop {
            match self.limiter.admit(flow, PATIENCE, now) {
                Decision::Admit(flight) => {
                    let light = self.limiter.light_load(Some(flow));
                    match self.acquire(flight.is_express(), light, now) {
                        Ok(name) => {
                            self.names.insert(request, name);
                            return Said::Go(Some(flight));
                        }
                        Err(()) => self.limiter.mark_unsent(&flight),
                    }
                }
                Decision::Queue(ticket, _) => {
                    self.waiting.insert(ticket, request);
                    return Said::Wait(ticket);
                }
                Decision::Reject(_) => return Said::Refused,
            }
        }
    }

    /// Returns the next waiting request that may be sent, or the time of the next poll.
    pub fn next(&mut self, now: MonoTime) -> Option<Result<(usize, InFlight), MonoTime>> {
        while let Some(express) = self.limiter.needs_store_decision(now) {
            let light = self.limiter.light_load(None);
            let Ok(name) = self.acquire(express, light, now) else { continue };
            let Wakeup::Admit(ticket, flight) = self.limiter.next_admitted(now) else {
                unreachable!("one that wants to go waits")
            };
            let request = self.waiting.remove(&ticket)?;
            self.names.insert(request, name);
            return Some(Ok((request, flight)));
        }
        match self.limiter.poll_next(now) {
            Wakeup::At(at) => Some(Err(at)),
            Wakeup::Admit(..) | Wakeup::Idle => None,
        }
    }

    /// Ends the wait of a request. Returns whether it was still waiting.
    pub fn leave(&mut self, ticket: Ticket, flow: &Flow) -> bool {
        self.waiting.remove(&ticket);
        self.limiter.cancel(ticket, flow)
    }

    /// Records the outcome of a request.
    pub fn settle(&mut self, request: usize, fate: RequestOutcome, now: MonoTime) {
        let Some(name) = self.names.remove(&request) else { return };
        self.store.borrow_mut().settle(self.index, name, fate, now);
        self.limiter.merge_store_state(&[], self.store.borrow().foreign, now);
    }

    fn acquire(&mut self, express: bool, light: u32, now: MonoTime) -> Result<u64, ()> {
        self.asked += 1;
        let request = self.asked;
        let asking =
            AcquireRequest { request, express, waiting: self.limiter.has_waiters(), anyway: false, light, epoch: 0 };
        let acquired = self.store.borrow_mut().acquire(self.index, asking, now);
        match acquired {
            Acquired::Go { .. } => return Ok(request),
            Acquired::Held { by, wait, .. } => self.held(by, wait, now),
            other @ (Acquired::Empty { .. } | Acquired::UnknownMember) => unreachable!("{other:?}"),
        }
        Err(())
    }

    /// Delays the poll by a different time for each gateway.
    fn held(&mut self, by: ThrottleReason, wait: Option<Duration>, now: MonoTime) {
        self.asked += 1;
        let jitter = (self.asked * 31 + self.index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        self.limiter.apply_denial(CachedDenial::new(by, wait, Duration::from_nanos(jitter % JITTER_NS), now));
    }
}
