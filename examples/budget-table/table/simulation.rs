//! Discrete-event simulation of clients, gateways and the rate limiter of Cal.com. It never sleeps.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use calgate::ratelimit::fair_queue::Ticket;
use calgate::ratelimit::limiter::InFlight;
use calgate::time::MonoTime;

use super::cell::{Cell, Load, WINDOW};
use super::gateway::{Gateway, PATIENCE, Policy, Said};
use super::limiter::{Limiter, NamedLimit, Verdict};
use super::random::Random;

/// Result of a simulated cell.
#[derive(Debug)]
pub struct Outcome {
    /// 429 responses to the gateways.
    pub refused: u64,
    /// Blocks that Cal.com started.
    pub blocks: u64,
    /// Windows that the other client prolonged. No gateway can prevent that their count then exceeds the limit.
    pub prolonged_by_others: u64,
    /// Requests that Cal.com accepted, those of the other client included, as a part of its limit.
    pub used: f64,
    /// Requests served, as a part of those requested.
    pub served: f64,
    /// Requests of light consumers served, as a part of those requested.
    pub light_served: Option<f64>,
    /// 99th percentile of the waits of light consumers.
    pub light_p99: Option<Duration>,
    /// Largest difference between the shares of equal consumers, as a part of their mean.
    pub spread: Option<f64>,
    /// Smallest and largest number of requests served of a burst, as a part of N.
    pub of_bursts: Option<(f64, f64)>,
    /// Maximum usage by other clients that the first gateway estimated.
    pub foreign_seen: u32,
    /// Requests of the gateways that Cal.com accepted and refused, by the minute in which they arrived.
    pub minutes: Vec<Minute>,
}

/// Requests of the gateways that arrived at Cal.com in one minute.
#[derive(Debug, Clone, Copy, Default)]
pub struct Minute {
    /// Requests that Cal.com accepted.
    pub accepted: u32,
    /// Requests that Cal.com refused.
    pub refused: u32,
}

impl Outcome {
    /// Returns the number of 429 responses and of blocks.
    pub fn refused_and_blocks(&self) -> String {
        if self.blocks == 0 { self.refused.to_string() } else { format!("{} ({} blocks)", self.refused, self.blocks) }
    }
}

enum Event {
    /// Consumer.
    Comes(usize),
    /// Number of requests that consumer 0 sends at once.
    Burst(usize),
    /// Request.
    Leaves(usize),
    /// Request.
    Arrives(usize),
    /// Request.
    Answered(usize, Verdict),
    /// Request that waits, with its ticket.
    GivesUp(usize, Ticket),
    /// Gateway.
    Turn(usize),
    /// Arrival of a request of the other client.
    Foreign,
}

struct Asked {
    gateway: usize,
    consumer: usize,
    at: MonoTime,
    flight: Option<InFlight>,
}

struct Simulation {
    cell: Cell,
    events: BinaryHeap<Reverse<(MonoTime, usize)>>,
    what: Vec<Option<Event>>,
    random: Random,
    gateways: Vec<Gateway>,
    turns: Vec<MonoTime>,
    cal: Limiter,
    asked: Vec<Asked>,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    refused: u64,
    passed: u64,
    /// Requests served, by consumer.
    asked: Vec<u64>,
    served: Vec<u64>,
    /// Requests of light consumers after the warm-up: sent and served.
    light: (u64, u64),
    waits: Vec<Duration>,
    bursts: Vec<u64>,
    foreign_seen: u32,
    prolonged_by_others: u64,
    minutes: Vec<Minute>,
}

impl Tally {
    /// Counts an arrival at Cal.com in its minute.
    fn count_arrival(&mut self, now: MonoTime, verdict: &Verdict) {
        let minute = usize::try_from(now.since(MonoTime::default()).as_secs() / 60).unwrap_or(usize::MAX);
        if let Some(minute) = self.minutes.get_mut(minute) {
            minute.accepted += u32::from(!verdict.refused);
            minute.refused += u32::from(verdict.refused);
        }
    }
}

/// Simulates a cell.
pub fn run(cell: &Cell, policy: Policy) -> Outcome {
    run_with(cell, (0..cell.gateways).map(|index| Gateway::new(cell, policy, index)).collect())
}

/// Simulates a cell with the given gateways.
pub fn run_with(cell: &Cell, gateways: Vec<Gateway>) -> Outcome {
    let mut simulation = Simulation::new(cell, gateways);
    simulation.begin();
    while let Some(Reverse((now, event))) = simulation.events.pop() {
        if now > MonoTime::default().after(Duration::from_secs(cell.seconds)) {
            break;
        }
        if let Some(event) = simulation.what[event].take() {
            simulation.happens(event, now);
        }
    }
    simulation.outcome()
}

impl Simulation {
    fn new(cell: &Cell, gateways: Vec<Gateway>) -> Self {
        let limit = NamedLimit { name: "Default".to_owned(), limit: cell.limit, window: WINDOW, block: WINDOW };
        let consumers = cell.load.consumers().len();
        let seed = cell.hour * 1_000_000 + u64::from(cell.limit) * 31 + u64::from(cell.gateways);
        Self {
            cell: *cell,
            events: BinaryHeap::new(),
            what: Vec::new(),
            random: Random::new(seed),
            gateways,
            turns: vec![MonoTime(u64::MAX); cell.gateways as usize],
            cal: Limiter::new(vec![limit], cell.quirk),
            asked: Vec::new(),
            tally: Tally {
                asked: vec![0; consumers],
                served: vec![0; consumers],
                minutes: vec![Minute::default(); usize::try_from(cell.seconds / 60).unwrap_or_default()],
                ..Tally::default()
            },
        }
    }

    fn begin(&mut self) {
        let start = MonoTime(1_000_000_000);
        match self.cell.load {
            Load::Bursts => self.at(start, Event::Burst(3 * self.cell.limit as usize)),
            Load::Poisson(_) | Load::HeavyAndLight => {
                (0..self.tally.asked.len()).for_each(|consumer| self.at(start, Event::Comes(consumer)));
            }
        }
        if self.cell.foreign > 0 {
            self.at(start, Event::Foreign);
        }
    }

    fn at(&mut self, time: MonoTime, event: Event) {
        self.events.push(Reverse((time, self.what.len())));
        self.what.push(Some(event));
    }

    /// Returns the mean time between requests that amount to `percent` of N per minute.
    fn mean(&self, percent: f64) -> Duration {
        WINDOW.div_f64(f64::from(self.cell.limit) * percent / 100.0)
    }

    fn happens(&mut self, event: Event, now: MonoTime) {
        match event {
            Event::Comes(consumer) => {
                let mean = self.mean(self.cell.load.consumers()[consumer]);
                let next = now.after(self.random.exponential(mean));
                self.at(next, Event::Comes(consumer));
                self.ask(consumer, now);
            }
            Event::Burst(size) => {
                self.at(now.after(WINDOW * 2), Event::Burst(size));
                self.tally.bursts.push(0);
                (0..size).for_each(|_| self.ask(0, now));
            }
            Event::Leaves(request) => self.leaves(request, now),
            Event::Arrives(request) => {
                let verdict = self.cal.hit(now.since(MonoTime::default()));
                self.tally.count_arrival(now, &verdict);
                let slow = if self.random.below(100) == 0 { self.random.unit() * 2.0 } else { 0.0 };
                let way = Duration::from_millis(30) + self.random.exponential(Duration::from_millis(40));
                self.at(now.after(way + Duration::from_secs_f64(slow)), Event::Answered(request, verdict));
            }
            Event::Answered(request, verdict) => self.answered(request, &verdict, now),
            Event::GivesUp(request, ticket) => {
                let Asked { gateway, consumer, .. } = self.asked[request];
                self.gateways[gateway].leave(ticket, consumer);
            }
            // An earlier poll has replaced this one.
            Event::Turn(gateway) if self.turns[gateway] == now => {
                self.turns[gateway] = MonoTime(u64::MAX);
                self.turn(gateway, now);
            }
            Event::Turn(_) => {}
            Event::Foreign => {
                let next = self.random.exponential(self.mean(f64::from(self.cell.foreign)));
                self.at(now.after(next), Event::Foreign);
                let before = self.cal.prolonged();
                let verdict = self.cal.hit(now.since(MonoTime::default()));
                self.tally.prolonged_by_others += self.cal.prolonged() - before;
                self.tally.passed += u64::from(!verdict.refused);
            }
        }
    }

    fn ask(&mut self, consumer: usize, now: MonoTime) {
        let gateway = self.random.below(self.gateways.len());
        let request = self.asked.len();
        self.asked.push(Asked { gateway, consumer, at: now, flight: None });
        self.tally.asked[consumer] += 1;
        self.tally.light.0 += u64::from(self.is_light(request));
        match self.gateways[gateway].ask(&self.cell, request, consumer, now) {
            Said::Go(flight) => {
                self.asked[request].flight = flight;
                self.leaves(request, now);
            }
            Said::Later(at) => self.at(at, Event::Leaves(request)),
            Said::Wait(ticket) => self.at(now.after(PATIENCE), Event::GivesUp(request, ticket)),
            Said::Refused => {}
        }
        self.turn(gateway, now);
    }

    /// Returns whether a light consumer sent the request after the warm-up.
    fn is_light(&self, request: usize) -> bool {
        let warm = MonoTime::default().after(Duration::from_secs(self.cell.warm_up));
        self.asked.get(request).is_some_and(|asked| asked.consumer > 0 && asked.at > warm)
    }

    fn leaves(&mut self, request: usize, now: MonoTime) {
        let waited = now.since(self.asked[request].at);
        if self.asked[request].consumer > 0 {
            self.tally.waits.push(waited);
        }
        let way = Duration::from_millis(10) + self.random.exponential(Duration::from_millis(15));
        self.at(now.after(way), Event::Arrives(request));
    }

    fn answered(&mut self, request: usize, verdict: &Verdict, now: MonoTime) {
        let Asked { gateway, consumer, .. } = self.asked[request];
        if verdict.refused {
            self.tally.refused += 1;
        } else {
            self.tally.passed += 1;
            self.tally.served[consumer] += 1;
            self.tally.light.1 += u64::from(self.is_light(request));
            self.tally.bursts.last_mut().into_iter().for_each(|served| *served += 1);
        }
        if let Some(flight) = self.asked[request].flight.take() {
            self.gateways[gateway].answered(request, &flight, verdict, now);
            self.turn(gateway, now);
        }
        if let Some(standing) = self.gateways[0].standing(now) {
            self.tally.foreign_seen = self.tally.foreign_seen.max(standing.foreign);
        }
    }

    /// Sends the waiting requests that may go, and schedules the next poll.
    fn turn(&mut self, gateway: usize, now: MonoTime) {
        loop {
            match self.gateways[gateway].next(now) {
                Some(Ok((request, flight))) => {
                    self.asked[request].flight = Some(flight);
                    self.leaves(request, now);
                }
                Some(Err(at)) if at < self.turns[gateway] => {
                    self.turns[gateway] = at;
                    return self.at(at, Event::Turn(gateway));
                }
                Some(Err(_)) | None => return,
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of an hour")]
    fn outcome(mut self) -> Outcome {
        self.tally.waits.sort_unstable();
        let part = |n: u64, of: u64| n as f64 / of.max(1) as f64;
        let Tally { asked, served, bursts, .. } = &self.tally;
        let minutes = self.cell.seconds as f64 / 60.0;
        let light = self.cell.load == Load::HeavyAndLight;
        let equal = matches!(self.cell.load, Load::Poisson(_));
        let mean = part(served.iter().sum(), served.len() as u64);
        let (most, least) = (served.iter().max().copied(), served.iter().min().copied());
        let ninety_ninth = self.tally.waits.len() * 99 / 100;
        let of_n = |served: Option<&u64>| served.map(|&n| part(n, u64::from(self.cell.limit)));
        Outcome {
            refused: self.tally.refused,
            blocks: self.cal.blocks(),
            prolonged_by_others: self.tally.prolonged_by_others,
            used: self.tally.passed as f64 / (f64::from(self.cell.limit) * minutes),
            served: part(served.iter().sum(), asked.iter().sum()),
            light_served: light.then(|| part(self.tally.light.1, self.tally.light.0)),
            light_p99: self.tally.waits.get(ninety_ninth).copied().filter(|_| light),
            spread: equal.then(|| (most.unwrap_or(0) - least.unwrap_or(0)) as f64 / mean),
            of_bursts: of_n(bursts.iter().min()).zip(of_n(bursts.iter().max())),
            foreign_seen: self.tally.foreign_seen,
            minutes: self.tally.minutes,
        }
    }
}
