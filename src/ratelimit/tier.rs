//! Tier of a consumer: its rate limit, and how its requests wait for the budget of a credential.

use std::sync::Arc;
use std::time::Duration;

use super::Quota;
use super::fair_queue::{Flow, Priority};

/// A tier, as all stages share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// Size and refill rate of the bucket of each consumer.
    pub quota: Quota,
    /// How requests wait for the budget of a credential.
    pub scheduling: Scheduling,
}

/// Scheduling parameters of the requests of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduling {
    /// Weight of each consumer in the fair queue: the requests per minute of the tier.
    pub weight: u32,
    /// Class in the fair queue.
    pub priority: Priority,
    /// Longest wait: `max_wait` of the tier, or of `[budget]`.
    pub max_wait: Duration,
}

impl Scheduling {
    /// Returns the flow of one consumer in the fair queue. `key` identifies the consumer.
    pub fn flow(self, key: u64) -> Flow {
        Flow { key, weight: self.weight, priority: self.priority }
    }
}
