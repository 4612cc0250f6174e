//! Long-run demand of each consumer, for gateways that each see only a part of the requests.
//!
//! Where a consumer's requests are divided among gateways, chance brings one of them more in a window than the consumer's
//! part there, and none to another. What it asks for over several windows, served or not, tells who asks for no more than
//! its part from who asks for too much; and who is remembered tells among how many the limit is to be divided.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::time::Duration;

use crate::prehashed::PrefixHasher;
use crate::time::MonoTime;

/// How many requests beside a window's part chance may bring one gateway.
const BURST_TOLERANCE: u32 = 4;

/// Those who ask no more are looked for so many times a window, and forgotten after so many windows.
const SWEEPS_PER_WINDOW: u32 = 4;
const FORGET_AFTER_WINDOWS: u32 = 16;

/// What is ahead is counted in thousandths of a request.
const REQUEST: u64 = 1000;

/// What a limit is, and among how many gateways it is divided.
#[derive(Debug, Clone, Copy)]
pub struct SharedLimit {
    /// N: requests a window, of all gateways together.
    pub limit: u32,
    /// How long a window is.
    pub window: Duration,
    /// How many gateways consumers' requests are divided among.
    pub gateways: u32,
}

/// What is known of what a consumer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DemandLevel {
    /// Not enough yet: it has not demand for a whole window.
    Unknown,
    /// No more than its part, as far as chance allows to tell.
    Within,
    /// More than that.
    Over,
}

/// What each consumer has demand for.
#[derive(Debug, Default)]
pub struct DemandTracker {
    consumers: HashMap<u64, Demand, BuildHasherDefault<PrefixHasher>>,
    /// The weights of all of `consumers`.
    weights: u64,
    next_sweep: MonoTime,
}

#[derive(Debug)]
struct Demand {
    weight: u32,
    since: MonoTime,
    /// What it has demand for beyond its part, at that time.
    ahead: u64,
    at: MonoTime,
}

impl DemandTracker {
    /// A request of the consumer `key` comes.
    pub fn record(&mut self, key: u64, weight: u32, shared: &SharedLimit, now: MonoTime) {
        self.sweep(shared, now);
        let fresh = || Demand { weight: 0, since: now, ahead: 0, at: now };
        let demand = self.consumers.entry(key).or_insert_with(fresh);
        self.weights = self.weights - u64::from(demand.weight) + u64::from(weight);
        demand.weight = weight;
        let interval = interval(weight, self.weights, shared);
        demand.ahead = (demand.ahead_at(now, interval) + REQUEST).min(2 * max_ahead(interval, shared));
        demand.at = now;
    }

    /// What `key` asks for.
    pub fn level(&self, key: u64, shared: &SharedLimit, now: MonoTime) -> DemandLevel {
        let Some(demand) = self.consumers.get(&key) else { return DemandLevel::Unknown };
        let interval = interval(demand.weight, self.weights, shared);
        if demand.ahead_at(now, interval) > max_ahead(interval, shared) {
            DemandLevel::Over
        } else if now.since(demand.since) < shared.window {
            DemandLevel::Unknown
        } else {
            DemandLevel::Within
        }
    }

    /// The weights of all that are remembered.
    pub fn weights(&self) -> u64 {
        self.weights
    }

    fn sweep(&mut self, shared: &SharedLimit, now: MonoTime) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now.after(shared.window / SWEEPS_PER_WINDOW);
        let (mut left, weights) = (0, self.weights);
        self.consumers.retain(|_, demand| {
            // Twice as long as it takes until chance can have brought it as many again.
            let remembered =
                interval(demand.weight, weights, shared).saturating_mul(2 * BURST_TOLERANCE) + 2 * shared.window;
            let keep = now.since(demand.at) < remembered.min(shared.window * FORGET_AFTER_WINDOWS);
            left += if keep { u64::from(demand.weight) } else { 0 };
            keep
        });
        self.weights = left;
    }
}

impl Demand {
    fn ahead_at(&self, now: MonoTime, interval: Duration) -> u64 {
        let over = now.since(self.at).as_nanos() * u128::from(REQUEST) / interval.as_nanos().max(1);
        self.ahead.saturating_sub(u64::try_from(over).unwrap_or(u64::MAX))
    }
}

/// The time in which the part of `weight` of `weights` at one gateway is one request.
fn interval(weight: u32, weights: u64, shared: &SharedLimit) -> Duration {
    let of_all = u128::from(weights) * u128::from(shared.gateways) * shared.window.as_nanos();
    let ns = of_all / (u128::from(weight.max(1)) * u128::from(shared.limit.max(1)));
    Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}

/// How much may be ahead by chance.
fn max_ahead(interval: Duration, shared: &SharedLimit) -> u64 {
    let part = shared.window.as_nanos() * u128::from(REQUEST) / interval.as_nanos().max(1);
    u64::try_from(part).unwrap_or(u64::MAX / 4).min(u64::MAX / 4) + u64::from(BURST_TOLERANCE) * REQUEST
}
