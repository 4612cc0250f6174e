//! Weighted shared queue: the order in which waiting requests are sent.
//!
//! Consumers wait in three classes. Within a class they take turns by deficit round robin (Shreedhar and Varghese, 1995),
//! weighted by their tiers, so that a consumer's turn does not depend on how much another one asks for. A higher class goes
//! first, but one send in [`LOW_PRIORITY_SHARE`] belongs to a lower one that waits.
//!
//! The queue also knows how much each consumer has of the log: who has less than its shared part of the limit need not line
//! up behind those who have more.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use super::ThrottleReason;
use super::demand::{DemandLevel, DemandTracker, SharedLimit};
use crate::prehashed::PrefixHasher;
use crate::time::MonoTime;

/// One send in so many goes to a lower class, if one waits.
const LOW_PRIORITY_SHARE: u32 = 10;

/// Requests that may wait for their turn: of one consumer, and of all. Of those that need no turn, as many of all may wait.
const MAX_WAITING_PER_FLOW: usize = 256;
const MAX_WAITING: usize = 1024;

/// Weights further apart than this are treated as that far apart.
const MAX_WEIGHT_RATIO: u32 = 64;

/// `[tiers.NAME] priority`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// Somebody is looking at a screen.
    Interactive,
    /// The rest.
    #[default]
    Default,
    /// What can wait.
    Batch,
}

/// A consumer, as the queue knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Tells consumers apart, over reloads.
    pub key: u64,
    /// Its part in relation to others'; its tier's requests a minute.
    pub weight: u32,
    /// Its class.
    pub priority: Priority,
}

/// A request's place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Everyone who waits, or has something of the log.
#[derive(Debug, Default)]
pub struct FairQueue {
    consumers: HashMap<u64, FlowState, BuildHasherDefault<PrefixHasher>>,
    /// The weights of all of `consumers`.
    weights: u64,
    /// Requests that wait for room, and not for their turn.
    express: VecDeque<(Ticket, u64)>,
    /// Consumers that wait, by class; the one whose turn it is in front.
    turns: [VecDeque<u64>; 3],
    waiting: usize,
    /// Sends since one of a lower class.
    since_lower: u32,
    tickets: u64,
    /// What consumers ask for in the long run, where there are several gateways.
    demand: DemandTracker,
}

#[derive(Debug)]
struct FlowState {
    weight: u32,
    priority: Priority,
    /// Requests in the log.
    used: u32,
    /// Requests among the express ones.
    express: u32,
    waiting: VecDeque<Ticket>,
    deficit: u32,
}

impl FlowState {
    /// What it has of the limit, or will have at once.
    fn has(&self) -> u64 {
        u64::from(self.used) + u64::from(self.express)
    }

    fn is_idle(&self) -> bool {
        self.used == 0 && self.express == 0 && self.waiting.is_empty()
    }
}

impl FairQueue {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0 && self.express.is_empty()
    }

    /// How many requests wait.
    pub fn len(&self) -> usize {
        self.waiting + self.express.len()
    }

    /// How many of them need no turn.
    pub fn express(&self) -> u32 {
        u32::try_from(self.express.len()).unwrap_or(u32::MAX)
    }

    /// Whether any wait for their turn.
    pub fn has_waiters(&self) -> bool {
        self.waiting > 0
    }

    /// A request of `flow` comes. A gateway that is alone sees all that it asks for, and need not remember.
    pub fn record_arrival(&mut self, flow: &Flow, shared: &SharedLimit, now: MonoTime) {
        if shared.gateways > 1 {
            self.demand.record(flow.key, flow.weight.max(1), shared, now);
        } else if self.demand.weights() > 0 {
            self.demand = DemandTracker::default();
        }
    }

    /// Whether `flow` may go, or wait, ahead of those that take turns: nobody of a higher class waits, and it has less than
    /// its part, or clearly less than who has most. At one of several gateways it may have more by chance, if in the long run
    /// it asks for no more.
    pub fn is_under_fair_share(&self, flow: &Flow, shared: &SharedLimit, now: MonoTime) -> bool {
        let higher = self.turns.iter().take(flow.priority as usize).any(|turns| !turns.is_empty());
        let known = self.consumers.get(&flow.key);
        if higher || known.is_some_and(|c| !c.waiting.is_empty()) {
            return false;
        }
        let (used, weight) = (known.map_or(0, FlowState::has), u64::from(flow.weight.max(1)));
        let weights = self.weights - known.map_or(0, |c| u64::from(c.weight)) + weight;
        let mut others = self.consumers.iter().filter(|&(&key, _)| key != flow.key).map(|(_, c)| c);
        if shared.gateways <= 1 {
            let part = (u64::from(shared.limit) * weight / weights).max(1);
            return used < part || others.any(|c| used * u64::from(c.weight) * 4 < c.has() * weight * 3);
        }
        let of_all = u64::from(shared.limit) * weight / weights.max(self.demand.weights());
        match self.demand.level(flow.key, shared, now) {
            DemandLevel::Within => return true,
            DemandLevel::Over if of_all < u64::from(shared.gateways) => return false,
            DemandLevel::Unknown if others.clone().any(|c| used * u64::from(c.weight) < c.has() * weight) => {
                return true;
            }
            DemandLevel::Unknown | DemandLevel::Over => {}
        }
        let part = of_all.div_ceil(u64::from(shared.gateways));
        used < part || others.any(|c| used * u64::from(c.weight) * 4 < c.has() * weight * 3)
    }

    /// Requests in the log of those who do not wait for their turn, without those of the consumer `but`.
    pub fn light_load(&self, but: Option<u64>) -> u32 {
        let others = self.consumers.iter().filter(|&(&key, c)| c.waiting.is_empty() && Some(key) != but);
        others.map(|(_, c)| c.used).fold(0, u32::saturating_add)
    }

    /// How many sends it takes until a further request of `flow` has had its turn.
    pub fn turns_until(&self, flow: &Flow) -> u32 {
        let own = self.consumers.get(&flow.key).map_or(0, |c| c.waiting.len()) as u64 + 1;
        let class = flow.priority as usize;
        let mut sends = own;
        for (at, turns) in self.turns.iter().enumerate().take(class + 1) {
            for other in turns.iter().filter(|&&key| key != flow.key).filter_map(|key| self.consumers.get(key)) {
                let waiting = other.waiting.len() as u64;
                let turns = (own * u64::from(other.weight)).div_ceil(u64::from(flow.weight.max(1)));
                sends += if at < class { waiting } else { waiting.min(turns) };
            }
        }
        u32::try_from(sends).unwrap_or(u32::MAX)
    }

    /// Lines a request up.
    ///
    /// # Errors
    /// [`ThrottleReason::Queue`] if too many wait already.
    pub fn enqueue(&mut self, flow: &Flow, express: bool) -> Result<Ticket, ThrottleReason> {
        let own = self.consumers.get(&flow.key).map_or(0, |c| c.waiting.len());
        let many = if express {
            self.express.len() >= MAX_WAITING
        } else {
            self.waiting >= MAX_WAITING || own >= MAX_WAITING_PER_FLOW
        };
        if many {
            return Err(ThrottleReason::Queue);
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let consumer = self.consumer(flow);
        if express {
            consumer.express += 1;
            self.express.push_back((ticket, flow.key));
            return Ok(ticket);
        }
        consumer.waiting.push_back(ticket);
        let (first, priority) = (consumer.waiting.len() == 1, consumer.priority);
        self.waiting += 1;
        if first {
            self.turns_of(priority).push_back(flow.key);
        }
        Ok(ticket)
    }

    /// Takes the next request that needs no turn.
    pub fn next_express(&mut self) -> Option<(Ticket, u64)> {
        let (ticket, key) = self.express.pop_front()?;
        if let Some(consumer) = self.consumers.get_mut(&key) {
            consumer.express = consumer.express.saturating_sub(1);
        }
        Some((ticket, key))
    }

    /// Takes the request whose turn it is.
    pub fn next_turn(&mut self) -> Option<(Ticket, u64)> {
        let classes = || self.turns.iter().enumerate().filter(|(_, turns)| !turns.is_empty()).map(|(class, _)| class);
        let (highest, lowest) = (classes().next()?, classes().next_back()?);
        let lower = lowest != highest && self.since_lower + 1 >= LOW_PRIORITY_SHARE;
        self.since_lower = if lower || lowest == highest { 0 } else { self.since_lower + 1 };
        self.take_turn(if lower { lowest } else { highest })
    }

    /// One send costs as much as the heaviest of the class weighs, so that a round gives each its weight's part.
    fn take_turn(&mut self, class: usize) -> Option<(Ticket, u64)> {
        let turns = self.turns.get_mut(class)?;
        let cost = turns.iter().filter_map(|key| self.consumers.get(key)).map(|c| c.weight).max()?;
        loop {
            let &key = turns.front()?;
            let consumer = self.consumers.get_mut(&key)?;
            if consumer.deficit < cost {
                consumer.deficit += consumer.weight.max(cost / MAX_WEIGHT_RATIO).max(1);
                if consumer.deficit < cost {
                    turns.rotate_left(1);
                    continue;
                }
            }
            consumer.deficit -= cost;
            let ticket = consumer.waiting.pop_front()?;
            self.waiting -= 1;
            if consumer.waiting.is_empty() {
                consumer.deficit = 0;
                turns.pop_front();
            } else if consumer.deficit < cost {
                turns.rotate_left(1);
            }
            return Some((ticket, key));
        }
    }

    /// A waiting request gives up. Answers whether it was still waiting.
    pub fn cancel(&mut self, ticket: Ticket, key: u64) -> bool {
        let Some(consumer) = self.consumers.get_mut(&key) else { return false };
        if let Some(at) = consumer.waiting.iter().position(|&t| t == ticket) {
            consumer.waiting.remove(at);
            self.waiting -= 1;
            if consumer.waiting.is_empty() {
                consumer.deficit = 0;
                let priority = consumer.priority;
                self.turns_of(priority).retain(|&k| k != key);
            }
        } else if let Some(at) = self.express.iter().position(|&(t, _)| t == ticket) {
            consumer.express = consumer.express.saturating_sub(1);
            self.express.remove(at);
        } else {
            return false;
        }
        self.forget_if_idle(key);
        true
    }

    /// A request of `flow` goes out without having waited.
    pub fn record_express(&mut self, flow: &Flow) {
        self.consumer(flow).used += 1;
    }

    /// A request that waited goes out.
    pub fn record_start(&mut self, key: u64) {
        if let Some(consumer) = self.consumers.get_mut(&key) {
            consumer.used += 1;
        }
    }

    /// A request of a consumer has left the log.
    pub fn record_expiry(&mut self, key: u64) {
        if let Some(consumer) = self.consumers.get_mut(&key) {
            consumer.used = consumer.used.saturating_sub(1);
        }
        self.forget_if_idle(key);
    }

    /// How many consumers it holds.
    pub fn consumers(&self) -> usize {
        self.consumers.len()
    }

    fn turns_of(&mut self, priority: Priority) -> &mut VecDeque<u64> {
        let [interactive, default, batch] = &mut self.turns;
        match priority {
            Priority::Interactive => interactive,
            Priority::Default => default,
            Priority::Batch => batch,
        }
    }

    /// The consumer's entry, with the weight that it has now. Its class changes when none of it waits.
    fn consumer(&mut self, flow: &Flow) -> &mut FlowState {
        let Flow { key, weight, priority } = *flow;
        let weight = weight.max(1);
        let fresh = || FlowState { weight: 0, priority, used: 0, express: 0, waiting: VecDeque::new(), deficit: 0 };
        let consumer = self.consumers.entry(key).or_insert_with(fresh);
        self.weights = self.weights - u64::from(consumer.weight) + u64::from(weight);
        consumer.weight = weight;
        if consumer.waiting.is_empty() {
            consumer.priority = priority;
        }
        consumer
    }

    fn forget_if_idle(&mut self, key: u64) {
        if let Some(consumer) = self.consumers.get(&key).filter(|consumer| consumer.is_idle()) {
            self.weights -= u64::from(consumer.weight);
            self.consumers.remove(&key);
        }
    }
}
