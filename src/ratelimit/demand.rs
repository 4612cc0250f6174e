//! Long-run demand of each consumer, for gateways that each see only some of the requests.
//!
//! If a consumer's requests are divided among gateways, one gateway can randomly receive more of them in a window than the
//! consumer's share there. The demand over several windows, served or not, shows whether the consumer asks for more than its
//! share. The consumers with recent demand divide the limit among them.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::time::Duration;

use crate::prehashed::PrefixHasher;
use crate::time::MonoTime;

/// Requests above the share of a window that one gateway can randomly receive.
const BURST_TOLERANCE: u32 = 4;

/// Idle consumers are swept four times per window, and forgotten after at most 16 windows.
const SWEEPS_PER_WINDOW: u32 = 4;
const FORGET_AFTER_WINDOWS: u32 = 16;

/// Demand above the share is counted in thousandths of a request.
const REQUEST: u64 = 1000;

/// A limit, and the gateways among which it is divided.
#[derive(Debug, Clone, Copy)]
pub struct SharedLimit {
    /// N: requests per window, for all gateways together.
    pub limit: u32,
    /// Length of a window.
    pub window: Duration,
    /// Number of gateways among which the requests of consumers are divided.
    pub gateways: u32,
}

/// Demand of a consumer in relation to its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DemandLevel {
    /// Unknown, because the consumer is known for less than a window.
    Unknown,
    /// Within the share, apart from random bursts.
    Within,
    /// Above the share.
    Over,
}

/// Demand of each consumer.
#[derive(Debug, Default)]
pub struct DemandTracker {
    consumers: HashMap<u64, Demand, BuildHasherDefault<PrefixHasher>>,
    /// Sum of the weights of all `consumers`.
    weights: u64,
    next_sweep: MonoTime,
}

#[derive(Debug)]
struct Demand {
    weight: u32,
    since: MonoTime,
    /// Demand above the share, at `at`.
    ahead: u64,
    at: MonoTime,
}

impl DemandTracker {
    /// Records the arrival of a request of the consumer `key`.
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

    /// Returns the demand of the consumer `key`.
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

    /// Returns the sum of the weights of all remembered consumers.
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
            // Twice the time after which a random burst of the same size is possible.
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

/// Returns the time in which the share of `weight` of `weights` at one gateway is one request.
fn interval(weight: u32, weights: u64, shared: &SharedLimit) -> Duration {
    let of_all = u128::from(weights) * u128::from(shared.gateways) * shared.window.as_nanos();
    let ns = of_all / (u128::from(weight.max(1)) * u128::from(shared.limit.max(1)));
    Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}

/// Returns the largest demand above the share that can be random.
fn max_ahead(interval: Duration, shared: &SharedLimit) -> u64 {
    let part = shared.window.as_nanos() * u128::from(REQUEST) / interval.as_nanos().max(1);
    u64::try_from(part).unwrap_or(u64::MAX / 4).min(u64::MAX / 4) + u64::from(BURST_TOLERANCE) * REQUEST
}
