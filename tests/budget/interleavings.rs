//! No order of events lets Cal.com count more than N in one of its windows. What Cal.com counts is decided by the model of
//! its limiter, which the budget knows nothing of.

use std::time::Duration;

use calgate::budget::Settings;
use calgate::budget::headers::{Seen, Told, Verdict, name_hash};
use calgate::budget::machine::{Asked, Flight, Machine, Next};
use calgate::budget::queue::{Asker, Priority, Ticket};
use calgate::limit::Tick;
use proptest::prelude::*;

use super::table::limiter::{self, Limiter, NamedLimit};

const WINDOW: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(30);

/// What may happen next; numbers choose among the requests there are.
#[derive(Debug, Clone)]
enum Event {
    Asks(u32),
    /// Milliseconds.
    Passes(u64),
    Arrives(usize),
    Answered(usize),
    /// Nothing more will be known of a request; it may yet arrive, before its deadline.
    Lost(usize),
    Unsent(usize),
    /// One that waits gives up.
    Leaves(usize),
    /// A reload, with another limit of at most what Cal.com grants.
    Reload(u32),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => (0..4_u32).prop_map(Event::Asks),
        4 => prop_oneof![0..50_u64, 0..2_000_u64, 0..40_000_u64].prop_map(Event::Passes),
        8 => any::<usize>().prop_map(Event::Arrives),
        8 => any::<usize>().prop_map(Event::Answered),
        1 => any::<usize>().prop_map(Event::Lost),
        1 => any::<usize>().prop_map(Event::Unsent),
        1 => any::<usize>().prop_map(Event::Leaves),
        1 => (1..20_u32).prop_map(Event::Reload),
    ];
    prop::collection::vec(event, 0..400)
}

struct Request {
    gateway: usize,
    flight: Flight,
    arrived: Option<limiter::Verdict>,
}

struct World {
    limit: u32,
    /// Whether Cal.com tells of its limits.
    talks: bool,
    cal: Limiter,
    gateways: Vec<Machine>,
    now: Tick,
    waiting: Vec<(usize, Ticket, Asker)>,
    out: Vec<Request>,
    /// Lost requests that may yet arrive, and by when.
    lost: Vec<Tick>,
}

impl World {
    fn new(gateways: u32, limit: u32, talks: bool) -> Self {
        let named = NamedLimit { name: "Default".to_owned(), limit, window: WINDOW, block: WINDOW };
        let machine = |seed| Machine::new(settings(gateways, limit), u64::from(seed));
        Self {
            limit,
            talks,
            cal: Limiter::new(vec![named], false),
            gateways: (0..gateways).map(machine).collect(),
            now: Tick(1),
            waiting: Vec::new(),
            out: Vec::new(),
            lost: Vec::new(),
        }
    }

    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Asks(consumer) => {
                let gateway = usize::try_from(self.now.0 / 7).unwrap() % self.gateways.len();
                let asker = Asker { key: consumer.into(), weight: 1 + consumer * 3, priority: Priority::Default };
                self.gateways[gateway].comes(&asker, self.now);
                match self.gateways[gateway].ask(&asker, Duration::from_secs(300), self.now) {
                    Asked::Go(flight) => self.out.push(Request { gateway, flight, arrived: None }),
                    Asked::Wait(ticket, _) => self.waiting.push((gateway, ticket, asker)),
                    Asked::Refuse(_) => {}
                }
            }
            Event::Passes(milliseconds) => self.now = self.now.after(Duration::from_millis(milliseconds)),
            Event::Arrives(n) if n % 8 == 0 && !self.lost.is_empty() => {
                let deadline = self.lost.swap_remove(n % self.lost.len());
                if self.now <= deadline {
                    self.arrive();
                }
            }
            Event::Arrives(n) => {
                let chosen = (0..self.out.len()).filter(|&i| self.out[i].arrived.is_none()).cycle().nth(n % 64);
                if let Some(request) = chosen {
                    self.out[request].arrived = Some(self.arrive());
                }
            }
            Event::Answered(n) => {
                let chosen = (0..self.out.len()).filter(|&i| self.out[i].arrived.is_some()).cycle().nth(n % 64);
                if let Some(request) = chosen {
                    let request = self.out.swap_remove(request);
                    let told = if self.talks { told(&request.arrived.unwrap()) } else { Told::default() };
                    self.gateways[request.gateway].answered(&request.flight, Verdict::Passed, &told, self.now);
                }
            }
            Event::Lost(n) => {
                if let Some(request) = self.choose(n) {
                    let deadline = self.now.after(DEADLINE);
                    self.gateways[request.gateway].lost(&request.flight, deadline);
                    if request.arrived.is_none() {
                        self.lost.push(deadline);
                    }
                }
            }
            Event::Unsent(n) => {
                let chosen = (0..self.out.len()).filter(|&i| self.out[i].arrived.is_none()).cycle().nth(n % 64);
                if let Some(request) = chosen {
                    let request = self.out.swap_remove(request);
                    self.gateways[request.gateway].unsent(&request.flight);
                }
            }
            Event::Leaves(n) if !self.waiting.is_empty() => {
                let (gateway, ticket, asker) = self.waiting.swap_remove(n % self.waiting.len());
                assert!(self.gateways[gateway].leave(ticket, &asker), "it was still waiting");
            }
            Event::Leaves(_) => {}
            Event::Reload(limit) => {
                let settings = settings(u32::try_from(self.gateways.len()).unwrap(), limit.min(self.limit));
                self.gateways.iter_mut().for_each(|machine| machine.configure(settings));
            }
        }
        self.turns();
    }

    fn choose(&mut self, n: usize) -> Option<Request> {
        if self.out.is_empty() { None } else { Some(self.out.swap_remove(n % self.out.len())) }
    }

    fn arrive(&mut self) -> limiter::Verdict {
        let verdict = self.cal.hit(self.now.since(Tick::default()));
        assert!(!verdict.refused, "a window exceeds {}", self.limit);
        verdict
    }

    fn turns(&mut self) {
        for (gateway, machine) in self.gateways.iter_mut().enumerate() {
            while let Next::Go(ticket, flight) = machine.next(self.now) {
                self.waiting.retain(|(g, t, _)| (*g, *t) != (gateway, ticket));
                self.out.push(Request { gateway, flight, arrived: None });
            }
            let standing = machine.standing(self.now);
            let out = self.out.iter().filter(|request| request.gateway == gateway).count();
            assert_eq!(standing.in_flight as usize, out, "each request in flight is counted once");
            assert_eq!(standing.waiting, self.waiting.iter().filter(|(g, ..)| *g == gateway).count());
            assert!(standing.used <= self.limit, "the log is bounded by the limit");
        }
    }
}

fn settings(replicas: u32, limit: u32) -> Settings {
    Settings { limit, window: WINDOW, replicas, learn_limit: false }
}

fn told(verdict: &limiter::Verdict) -> Told {
    let seen = |standing: &limiter::Standing| Seen {
        name: name_hash(&standing.name),
        limit: Some(standing.limit),
        remaining: standing.remaining,
        reset: Duration::from_secs(standing.reset_seconds),
    };
    Told { limits: verdict.standings.iter().map(seen).collect(), absurd: false }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_gateway_never_exceeds_a_window_whether_cal_com_tells_of_its_limits_or_not(
        limit in 1..20_u32,
        talks in any::<bool>(),
        events in events(),
    ) {
        let mut world = World::new(1, limit, talks);
        for event in &events {
            world.happens(event);
        }
    }

    /// With an answer for each request: what is lost without one may arrive so late that only the sum over all gateways
    /// would know.
    #[test]
    fn several_gateways_never_exceed_a_window_together(
        gateways in 2..5_u32,
        limit in 5..40_u32,
        events in events(),
    ) {
        let mut world = World::new(gateways, limit, true);
        let answered = |event: &&Event| !matches!(event, Event::Lost(_));
        for event in events.iter().filter(answered) {
            world.happens(event);
        }
    }
}
