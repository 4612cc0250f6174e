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
const BY_CHANCE: u32 = 4;

/// Those who ask no more are looked for so many times a window, and forgotten after so many windows.
const LOOKS: u32 = 4;
const REMEMBERED: u32 = 16;

/// What is ahead is counted in thousandths of a request.
const REQUEST: u64 = 1000;

/// What a limit is, and among how many gateways it is divided.
#[derive(Debug, Clone, Copy)]
pub struct Fair {
    /// N: requests a window, of all gateways together.
    pub limit: u32,
    /// How long a window is.
    pub window: Duration,
    /// How many gateways consumers' requests are divided among.
    pub among: u32,
}

/// What is known of what a consumer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LongRun {
    /// Not enough yet: it has not asked for a whole window.
    Unknown,
    /// No more than its part, as far as chance allows to tell.
    Within,
    /// More than that.
    Over,
}

/// What each consumer has asked for.
#[derive(Debug, Default)]
pub struct AskedFor {
    consumers: HashMap<u64, Asked, BuildHasherDefault<PrefixHasher>>,
    /// The weights of all of `consumers`.
    weights: u64,
    next_look: MonoTime,
}

#[derive(Debug)]
struct Asked {
    weight: u32,
    since: MonoTime,
    /// What it has asked for beyond its part, at that time.
    ahead: u64,
    at: MonoTime,
}

impl AskedFor {
    /// A request of the consumer `key` comes.
    pub fn note(&mut self, key: u64, weight: u32, fair: &Fair, now: MonoTime) {
        self.forget(fair, now);
        let fresh = || Asked { weight: 0, since: now, ahead: 0, at: now };
        let asked = self.consumers.entry(key).or_insert_with(fresh);
        self.weights = self.weights - u64::from(asked.weight) + u64::from(weight);
        asked.weight = weight;
        let every = every(weight, self.weights, fair);
        asked.ahead = (asked.ahead_at(now, every) + REQUEST).min(2 * most(every, fair));
        asked.at = now;
    }

    /// What `key` asks for.
    pub fn long_run(&self, key: u64, fair: &Fair, now: MonoTime) -> LongRun {
        let Some(asked) = self.consumers.get(&key) else { return LongRun::Unknown };
        let every = every(asked.weight, self.weights, fair);
        if asked.ahead_at(now, every) > most(every, fair) {
            LongRun::Over
        } else if now.since(asked.since) < fair.window {
            LongRun::Unknown
        } else {
            LongRun::Within
        }
    }

    /// The weights of all that are remembered.
    pub fn weights(&self) -> u64 {
        self.weights
    }

    fn forget(&mut self, fair: &Fair, now: MonoTime) {
        if now < self.next_look {
            return;
        }
        self.next_look = now.after(fair.window / LOOKS);
        let (mut left, weights) = (0, self.weights);
        self.consumers.retain(|_, asked| {
            // Twice as long as it takes until chance can have brought it as many again.
            let remembered = every(asked.weight, weights, fair).saturating_mul(2 * BY_CHANCE) + 2 * fair.window;
            let keep = now.since(asked.at) < remembered.min(fair.window * REMEMBERED);
            left += if keep { u64::from(asked.weight) } else { 0 };
            keep
        });
        self.weights = left;
    }
}

impl Asked {
    fn ahead_at(&self, now: MonoTime, every: Duration) -> u64 {
        let over = now.since(self.at).as_nanos() * u128::from(REQUEST) / every.as_nanos().max(1);
        self.ahead.saturating_sub(u64::try_from(over).unwrap_or(u64::MAX))
    }
}

/// The time in which the part of `weight` of `weights` at one gateway is one request.
fn every(weight: u32, weights: u64, fair: &Fair) -> Duration {
    let of_all = u128::from(weights) * u128::from(fair.among) * fair.window.as_nanos();
    let ns = of_all / (u128::from(weight.max(1)) * u128::from(fair.limit.max(1)));
    Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}

/// How much may be ahead by chance.
fn most(every: Duration, fair: &Fair) -> u64 {
    let part = fair.window.as_nanos() * u128::from(REQUEST) / every.as_nanos().max(1);
    u64::try_from(part).unwrap_or(u64::MAX / 4).min(u64::MAX / 4) + u64::from(BY_CHANCE) * REQUEST
}
