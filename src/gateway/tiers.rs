//! Tiers of a configuration: each is made once, and all stages refer to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Config;
use crate::config::consumers::ConsumerConfig;
use crate::config::tiers::TierConfig;
use crate::gateway::build::unresolved_reference;
use crate::ratelimit::fair_queue::Priority;
use crate::ratelimit::{Quota, Scheduling, Tier};

/// The tiers of consumers, by name, and those of other callers.
pub(super) struct Tiers {
    named: BTreeMap<String, Arc<Tier>>,
    /// Tier of callers without a key.
    pub(super) public: Arc<Tier>,
    /// Tier of passthrough callers; `None` if passthrough is off.
    pub(super) passthrough: Option<Arc<Tier>>,
}

impl Tiers {
    /// Makes the tiers of a configuration.
    pub(super) fn of(config: &Config) -> Self {
        let default_wait = config.budget.max_wait;
        let tier = |(name, tier): (&String, &TierConfig)| {
            let max_wait = tier.max_wait.unwrap_or(default_wait);
            let scheduling = Scheduling { weight: tier.requests_per_minute, priority: tier.priority, max_wait };
            (name.clone(), Arc::new(Tier { name: name.as_str().into(), quota: tier.quota, scheduling }))
        };
        let named: BTreeMap<_, _> = config.tiers.iter().map(tier).collect();
        let per_minute = config.anonymous.requests_per_minute;
        // All public callers have the same weight in the fair queue, whatever their rate limit is.
        let scheduling = Scheduling { weight: 1, priority: Priority::Default, max_wait: default_wait };
        let quota = Quota::per_minute(per_minute, per_minute);
        let public = Arc::new(Tier { name: "(public)".into(), quota, scheduling });
        let passthrough = config.passthrough.as_ref().and_then(|section| named.get(&*section.tier)).cloned();
        Self { named, public, passthrough }
    }

    /// Returns the tier of a consumer.
    ///
    /// # Errors
    /// A message, if there is no such tier. A checked configuration has all tiers.
    pub(super) fn of_consumer(&self, consumer: &ConsumerConfig) -> Result<&Arc<Tier>, String> {
        self.named.get(&*consumer.tier).ok_or_else(|| unresolved_reference(consumer))
    }
}
