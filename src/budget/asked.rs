//! What consumers ask for in the long run, where each of several gateways sees only a part of it.
//!
//! Where a consumer's requests are divided among gateways, chance brings one of them more in a window than the consumer's
//! part there, and none to another. What it asks for over several windows, served or not, tells who asks for no more than
//! its part from who asks for too much; and who is remembered tells among how many the limit is to be divided.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::time::Duration;

use crate::identify::HashPrefix;
use crate::limit::Tick;

/// How many requests beside a window's part chance may bring one gateway.
const BY_CHANCE: u32 = 4;

/// Those who ask no more are looked for so many times a window.
const LOOKS: u32 = 4;

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
    consumers: HashMap<u64, Asked, BuildHasherDefault<HashPrefix>>,
    /// The weights of all of `consumers`.
    weights: u64,
    next_look: Tick,
}

#[derive(Debug)]
struct Asked {
    weight: u32,
    since: Tick,
    /// Until when what it has asked for is its part.
    until: Tick,
    /// When nothing is known of it any more.
    forgotten: Tick,
}

impl AskedFor {
    /// A request of the consumer `key` comes.
    pub fn note(&mut self, key: u64, weight: u32, fair: &Fair, now: Tick) {
        self.forget(fair, now);
        let fresh = || Asked { weight: 0, since: now, until: now, forgotten: now };
        let asked = self.consumers.entry(key).or_insert_with(fresh);
        self.weights = self.weights - u64::from(asked.weight) + u64::from(weight);
        asked.weight = weight;
        let every = every(weight, self.weights, fair);
        let most = most(every, fair);
        asked.until = asked.until.max(now).after(every).min(now.after(most * 2));
        asked.forgotten = asked.until.after(most);
    }

    /// What `key` asks for.
    pub fn long_run(&self, key: u64, fair: &Fair, now: Tick) -> LongRun {
        let Some(asked) = self.consumers.get(&key) else { return LongRun::Unknown };
        let most = most(every(asked.weight, self.weights, fair), fair);
        match asked.until.since(now) {
            ahead if ahead > most => LongRun::Over,
            _ if now.since(asked.since) < fair.window => LongRun::Unknown,
            _ => LongRun::Within,
        }
    }

    /// The weights of all that are remembered.
    pub fn weights(&self) -> u64 {
        self.weights
    }

    fn forget(&mut self, fair: &Fair, now: Tick) {
        if now < self.next_look {
            return;
        }
        self.next_look = now.after(fair.window / LOOKS);
        self.consumers.retain(|_, asked| now < asked.forgotten);
        self.weights = self.consumers.values().map(|asked| u64::from(asked.weight)).sum();
    }
}

/// The time in which the part of `weight` of `weights` at one gateway is one request.
fn every(weight: u32, weights: u64, fair: &Fair) -> Duration {
    let of_all = u128::from(weights) * u128::from(fair.among) * fair.window.as_nanos();
    let ns = of_all / (u128::from(weight.max(1)) * u128::from(fair.limit.max(1)));
    Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}

/// By how much what one asks for may be ahead of its part.
fn most(every: Duration, fair: &Fair) -> Duration {
    fair.window.saturating_add(every.saturating_mul(BY_CHANCE))
}
