//! Weighted fair queue: the order in which waiting requests are sent.
//!
//! Consumers wait in three classes. Within a class they take turns by deficit round robin (Shreedhar and Varghese, 1995),
//! weighted by their tiers. So a consumer's turn does not depend on the demand of another one. A higher class goes first, but one
//! send in [`LOW_PRIORITY_SHARE`] belongs to the lowest class that waits.
//!
//! The queue also counts the requests of each consumer in the log. A consumer below its fair share of the limit uses the *express
//! lane*: it does not wait behind consumers above their shares.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use super::ThrottleReason;
use super::demand::{DemandLevel, DemandTracker, SharedLimit};
use crate::prehashed::PrefixHasher;
use crate::time::MonoTime;

/// One send in ten belongs to a lower class, if one waits.
const LOW_PRIORITY_SHARE: u32 = 10;

/// Maximum requests that wait for their turn, of one consumer and of all. The express lane has the second limit of its own.
const MAX_WAITING_PER_FLOW: usize = 256;
const MAX_WAITING: usize = 1024;

/// Largest ratio of two weights. A larger ratio counts as this one.
const MAX_WEIGHT_RATIO: u32 = 64;

/// `[tiers.NAME] priority`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// A person waits for the response.
    Interactive,
    /// All other requests.
    #[default]
    Default,
    /// Requests that can wait.
    Batch,
}

/// A consumer in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Key of the consumer, the same after a reload.
    pub key: u64,
    /// Weight of the consumer: the requests per minute of its tier.
    pub weight: u32,
    /// Class of the consumer.
    pub priority: Priority,
}

/// Identifier of a waiting request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// All consumers with waiting requests, or with requests in the log.
#[derive(Debug, Default)]
pub struct FairQueue {
    consumers: HashMap<u64, FlowState, BuildHasherDefault<PrefixHasher>>,
    /// Sum of the weights of all `consumers`.
    weights: u64,
    /// Requests in the express lane: they wait for capacity, not for a turn.
    express: VecDeque<(Ticket, u64)>,
    /// Waiting consumers by class. The consumer with the next turn is in front.
    turns: [VecDeque<u64>; 3],
    waiting: usize,
    /// Sends since the last one of a lower class.
    since_lower: u32,
    tickets: u64,
    /// Long-run demand of consumers, if there are several gateways.
    demand: DemandTracker,
}

#[derive(Debug)]
struct FlowState {
    weight: u32,
    priority: Priority,
    /// Requests in the log.
    used: u32,
    /// Requests in the express lane.
    express: u32,
    waiting: VecDeque<Ticket>,
    deficit: u32,
}

impl FlowState {
    /// Returns the requests in the log and in the express lane.
    fn has(&self) -> u64 {
        u64::from(self.used) + u64::from(self.express)
    }

    fn is_idle(&self) -> bool {
        self.used == 0 && self.express == 0 && self.waiting.is_empty()
    }
}

impl FairQueue {
    /// Returns whether no request waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0 && self.express.is_empty()
    }

    /// Returns the number of waiting requests.
    pub fn len(&self) -> usize {
        self.waiting + self.express.len()
    }

    /// Returns the number of requests in the express lane.
    pub fn express(&self) -> u32 {
        u32::try_from(self.express.len()).unwrap_or(u32::MAX)
    }

    /// Returns whether requests wait for a turn.
    pub fn has_waiters(&self) -> bool {
        self.waiting > 0
    }

    /// Records the arrival of a request. A single gateway sees the whole demand, so it remembers none.
    pub fn record_arrival(&mut self, flow: &Flow, shared: &SharedLimit, now: MonoTime) {
        if shared.gateways > 1 {
            self.demand.record(flow.key, flow.weight.max(1), shared, now);
        } else if self.demand.weights() > 0 {
            self.demand = DemandTracker::default();
        }
    }

    /// Returns whether requests of `flow` may use the express lane. No higher class may wait, and the consumer has less than its
    /// share, or clearly less than the consumer with the most. At one of several gateways it may randomly have more, if its
    /// long-run demand is within its share.
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

    /// Returns the requests in the log of consumers that have none waiting for a turn, except the consumer `but`.
    pub fn light_load(&self, but: Option<u64>) -> u32 {
        let others = self.consumers.iter().filter(|&(&key, c)| c.waiting.is_empty() && Some(key) != but);
        others.map(|(_, c)| c.used).fold(0, u32::saturating_add)
    }

    /// Returns the number of sends until a further request of `flow` has its turn.
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

    /// Adds a request to the queue.
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

    /// Takes the next request of the express lane.
    pub fn next_express(&mut self) -> Option<(Ticket, u64)> {
        let (ticket, key) = self.express.pop_front()?;
        if let Some(consumer) = self.consumers.get_mut(&key) {
            consumer.express = consumer.express.saturating_sub(1);
        }
        Some((ticket, key))
    }

    /// Takes the request with the next turn.
    pub fn next_turn(&mut self) -> Option<(Ticket, u64)> {
        let classes = || self.turns.iter().enumerate().filter(|(_, turns)| !turns.is_empty()).map(|(class, _)| class);
        let (highest, lowest) = (classes().next()?, classes().next_back()?);
        let lower = lowest != highest && self.since_lower + 1 >= LOW_PRIORITY_SHARE;
        self.since_lower = if lower || lowest == highest { 0 } else { self.since_lower + 1 };
        self.take_turn(if lower { lowest } else { highest })
    }

    /// One send costs the largest weight in the class, so a round gives each consumer sends in proportion to its weight.
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

    /// Removes a waiting request. Returns whether it was still waiting.
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

    /// Records that a request is sent without a wait.
    pub fn record_express(&mut self, flow: &Flow) {
        self.consumer(flow).used += 1;
    }

    /// Records that a waiting request is sent.
    pub fn record_start(&mut self, key: u64) {
        if let Some(consumer) = self.consumers.get_mut(&key) {
            consumer.used += 1;
        }
    }

    /// Records that a request has left the log.
    pub fn record_expiry(&mut self, key: u64) {
        if let Some(consumer) = self.consumers.get_mut(&key) {
            consumer.used = consumer.used.saturating_sub(1);
        }
        self.forget_if_idle(key);
    }

    /// Returns the number of known consumers.
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

    /// Returns the consumer's entry with its current weight. Its class changes only while it has no waiting request.
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
