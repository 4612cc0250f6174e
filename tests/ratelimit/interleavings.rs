//! Property tests: whatever the order of events, Cal.com counts at most N requests in each of its windows. A model of Cal.com's
//! limiter, which the budget does not know, does the counting.

use std::time::Duration;

use calgate::ratelimit::Settings;
use calgate::ratelimit::fair_queue::{Flow, Priority, Ticket};
use calgate::ratelimit::limiter::{BudgetLimiter, Decision, InFlight, Wakeup};
use calgate::ratelimit::usage_headers::{LimitReading, LimitReadings, UpstreamOutcome, name_hash};
use calgate::time::MonoTime;
use proptest::prelude::*;

use super::table::limiter::{self, Limiter, NamedLimit};
use crate::properties::cases;

const WINDOW: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(30);

/// Next event. Numbers choose among the existing requests.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Asks(u32),
    /// Milliseconds.
    Passes(u64),
    Arrives(usize),
    Answered(usize),
    /// The outcome of a request stays unknown. It may still arrive before its deadline.
    Lost(usize),
    Unsent(usize),
    /// A waiting request is cancelled.
    Leaves(usize),
    /// A reload with another limit of at most Cal.com's.
    Reload(u32),
    /// The same at one gateway. The others keep their limits until they reload too.
    ReloadsOne(usize, u32),
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

/// Requests and responses that often take about as long as a window.
fn slow_events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => (0..4_u32).prop_map(Event::Asks),
        4 => prop_oneof![0..50_u64, 0..3_000_u64, 20_000..40_000_u64].prop_map(Event::Passes),
        8 => any::<usize>().prop_map(Event::Arrives),
        6 => any::<usize>().prop_map(Event::Answered),
    ];
    prop::collection::vec(event, 0..250)
}

/// Reloads that reach one gateway after the other, so that their limits differ for a while.
fn uneven_events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => (0..4_u32).prop_map(Event::Asks),
        4 => prop_oneof![0..50_u64, 0..2_000_u64, 0..40_000_u64].prop_map(Event::Passes),
        8 => any::<usize>().prop_map(Event::Arrives),
        8 => any::<usize>().prop_map(Event::Answered),
        1 => any::<usize>().prop_map(Event::Unsent),
        2 => (any::<usize>(), 1..40_u32).prop_map(|(gateway, limit)| Event::ReloadsOne(gateway, limit)),
    ];
    prop::collection::vec(event, 0..400)
}

struct Request {
    gateway: usize,
    flight: InFlight,
    /// Cal.com's response, and the window in which it counted the request.
    arrived: Option<(limiter::Verdict, u32)>,
}

/// Gateways on one credential, and the model of Cal.com that counts their requests.
pub(super) struct World {
    limit: u32,
    /// Whether Cal.com reports its limits.
    talks: bool,
    cal: Limiter,
    /// Number of Cal.com's window, and the lost requests that it counted.
    window: (u32, u32),
    gateways: Vec<BudgetLimiter>,
    pub(super) now: MonoTime,
    waiting: Vec<(usize, Ticket, Flow)>,
    out: Vec<Request>,
    /// Deadlines of lost requests that may still arrive.
    lost: Vec<MonoTime>,
    /// Whether Cal.com has refused a request. What follows is not simulated.
    is_over: bool,
}

impl World {
    pub(super) fn new(gateways: u32, limit: u32, talks: bool) -> Self {
        let named = NamedLimit { name: "Default".to_owned(), limit, window: WINDOW, block: WINDOW };
        let limiter = |seed| BudgetLimiter::new(settings(gateways, limit), u64::from(seed));
        Self {
            limit,
            talks,
            cal: Limiter::new(vec![named], false),
            window: (0, 0),
            gateways: (0..gateways).map(limiter).collect(),
            now: MonoTime(1),
            waiting: Vec::new(),
            out: Vec::new(),
            lost: Vec::new(),
            is_over: false,
        }
    }

    pub(super) fn happen(&mut self, events: &[Event]) {
        for event in events {
            self.happens(event);
            if self.is_over {
                return;
            }
        }
    }

    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Asks(consumer) => {
                let gateway = usize::try_from(self.now.0 / 7).unwrap() % self.gateways.len();
                let flow = Flow { key: consumer.into(), weight: 1 + consumer * 3, priority: Priority::Default };
                self.gateways[gateway].record_arrival(&flow, self.now);
                match self.gateways[gateway].admit(&flow, Duration::from_secs(300), self.now) {
                    Decision::Admit(flight) => self.out.push(Request { gateway, flight, arrived: None }),
                    Decision::Queue(ticket, _) => self.waiting.push((gateway, ticket, flow)),
                    Decision::Reject(_) => {}
                }
            }
            Event::Passes(milliseconds) => self.now = self.now.after(Duration::from_millis(milliseconds)),
            Event::Arrives(n) if n % 8 == 0 && !self.lost.is_empty() => {
                let deadline = self.lost.swap_remove(n % self.lost.len());
                if self.now <= deadline {
                    self.arrive(true);
                }
            }
            Event::Arrives(n) => {
                let chosen = (0..self.out.len()).filter(|&i| self.out[i].arrived.is_none()).cycle().nth(n % 64);
                if let Some(request) = chosen {
                    self.out[request].arrived = Some(self.arrive(false));
                }
            }
            Event::Answered(n) => {
                let chosen = (0..self.out.len()).filter(|&i| self.out[i].arrived.is_some()).cycle().nth(n % 64);
                if let Some(request) = chosen {
                    let request = self.out.swap_remove(request);
                    let told = if self.talks { told(&request.arrived.unwrap().0) } else { LimitReadings::default() };
                    self.gateways[request.gateway].record_response(
                        &request.flight,
                        UpstreamOutcome::Passed,
                        &told,
                        self.now,
                    );
                }
            }
            Event::Lost(n) => {
                if let Some(request) = self.choose(n) {
                    let deadline = self.now.after(DEADLINE);
                    self.gateways[request.gateway].mark_lost(&request.flight, deadline);
                    match request.arrived {
                        None => self.lost.push(deadline),
                        Some((_, window)) => self.window.1 += u32::from(window == self.window.0),
                    }
                }
            }
            Event::Unsent(n) => {
                let chosen = (0..self.out.len()).filter(|&i| self.out[i].arrived.is_none()).cycle().nth(n % 64);
                if let Some(request) = chosen {
                    let request = self.out.swap_remove(request);
                    self.gateways[request.gateway].mark_unsent(&request.flight);
                }
            }
            Event::Leaves(n) if !self.waiting.is_empty() => {
                let (gateway, ticket, flow) = self.waiting.swap_remove(n % self.waiting.len());
                assert!(self.gateways[gateway].cancel(ticket, &flow), "it was still waiting");
            }
            Event::Leaves(_) => {}
            Event::Reload(limit) => (0..self.gateways.len()).for_each(|gateway| self.configure(gateway, limit)),
            Event::ReloadsOne(gateway, limit) => self.configure(gateway % self.gateways.len(), limit),
        }
        self.turns();
    }

    /// Reloads one gateway with another limit of at most Cal.com's.
    pub(super) fn configure(&mut self, gateway: usize, limit: u32) {
        let settings = settings(u32::try_from(self.gateways.len()).unwrap(), limit.min(self.limit));
        self.gateways[gateway].configure(settings);
    }

    fn choose(&mut self, n: usize) -> Option<Request> {
        if self.out.is_empty() { None } else { Some(self.out.swap_remove(n % self.out.len())) }
    }

    /// Lets Cal.com count a request. A gateway that has lost requests does not know which window counts them. So a window of
    /// several gateways may exceed its limit by as many.
    fn arrive(&mut self, is_lost: bool) -> (limiter::Verdict, u32) {
        let verdict = self.cal.hit(self.now.since(MonoTime::default()));
        let [standing] = verdict.standings.as_slice() else { panic!("one limit: {verdict:?}") };
        let (window, lost) = self.window;
        if standing.remaining + 1 == standing.limit && !verdict.refused {
            self.window = (window + 1, 0);
        }
        self.window.1 += u32::from(is_lost);
        if verdict.refused {
            self.is_over = true;
            let may_exceed = self.gateways.len() > 1 && lost + u32::from(is_lost) > 0;
            assert!(may_exceed, "a window exceeds {}", self.limit);
        }
        (verdict, self.window.0)
    }

    /// Returns a request of `consumer` at `gateway`, if it may be sent at once.
    pub(super) fn ask(&mut self, gateway: usize, consumer: u64) -> Option<InFlight> {
        let flow = Flow { key: consumer, weight: 1, priority: Priority::Default };
        self.gateways[gateway].record_arrival(&flow, self.now);
        match self.gateways[gateway].admit(&flow, Duration::ZERO, self.now) {
            Decision::Admit(flight) => Some(flight),
            Decision::Reject(_) => None,
            Decision::Queue(ticket, _) => {
                self.gateways[gateway].cancel(ticket, &flow);
                None
            }
        }
    }

    /// Lets a request arrive at Cal.com, and returns the response on its way.
    pub(super) fn respond(&mut self) -> limiter::Verdict {
        self.arrive(false).0
    }

    /// Delivers a response.
    pub(super) fn answered(&mut self, gateway: usize, flight: &InFlight, verdict: &limiter::Verdict) {
        self.gateways[gateway].record_response(flight, UpstreamOutcome::Passed, &told(verdict), self.now);
    }

    fn turns(&mut self) {
        for (gateway, limiter) in self.gateways.iter_mut().enumerate() {
            while let Wakeup::Admit(ticket, flight) = limiter.poll_next(self.now) {
                self.waiting.retain(|(g, t, _)| (*g, *t) != (gateway, ticket));
                self.out.push(Request { gateway, flight, arrived: None });
            }
            let standing = limiter.status(self.now);
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

fn told(verdict: &limiter::Verdict) -> LimitReadings {
    let seen = |standing: &limiter::Standing| LimitReading {
        name: name_hash(&standing.name),
        limit: Some(standing.limit),
        remaining: standing.remaining,
        reset: Duration::from_secs(standing.reset_seconds),
    };
    LimitReadings { limits: verdict.standings.iter().map(seen).collect(), has_implausible: false }
}

proptest! {
    #![proptest_config(cases(2048))]

    #[test]
    fn one_gateway_never_exceeds_a_window_with_or_without_reported_limits(
        limit in 1..20_u32,
        talks in any::<bool>(),
        events in events(),
    ) {
        World::new(1, limit, talks).happen(&events);
    }

    #[test]
    fn several_gateways_never_exceed_a_window_together(
        gateways in 2..5_u32,
        limit in 5..40_u32,
        events in events(),
    ) {
        let answered = |event: &Event| !matches!(event, Event::Lost(_));
        World::new(gateways, limit, true).happen(&events.into_iter().filter(answered).collect::<Vec<_>>());
    }

    #[test]
    fn gateways_with_different_limits_never_exceed_a_window_together(
        gateways in 2..5_u32,
        limit in 8..40_u32,
        events in uneven_events(),
    ) {
        World::new(gateways, limit, true).happen(&events);
    }

    /// The tightest case: the share of each gateway is one or two requests, and time passes in large steps.
    #[test]
    fn gateways_with_small_parts_and_slow_responses_never_exceed_a_window_together(
        gateways in 2..7_u32,
        limit in 6..16_u32,
        events in slow_events(),
    ) {
        World::new(gateways, limit, true).happen(&events);
    }

    #[test]
    fn several_gateways_exceed_a_window_by_no_more_than_the_requests_that_they_lost(
        gateways in 2..5_u32,
        limit in 5..40_u32,
        events in events(),
    ) {
        World::new(gateways, limit, true).happen(&events);
    }
}
