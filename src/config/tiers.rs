//! `[tiers.NAME]`: the rate limit of a consumer, and how its requests wait for the upstream budget.

use std::collections::BTreeMap;
use std::time::Duration;

use super::section::Section;
use crate::ratelimit::Quota;
use crate::ratelimit::fair_queue::Priority;

/// Settings of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierConfig {
    /// Size and refill rate of the bucket of each of its consumers.
    pub quota: Quota,
    /// Weight of its consumers in the queue of a credential.
    pub requests_per_minute: u32,
    /// Longest wait of a request for the budget of its credential. Default: `[budget] max_wait`.
    pub max_wait: Option<Duration>,
    /// Priority in the queue of a credential.
    pub priority: Priority,
}

impl TierConfig {
    fn per_minute(n: u32, burst: u32) -> Self {
        let quota = Quota::per_minute(n, burst);
        Self { quota, requests_per_minute: n, max_wait: None, priority: Priority::Default }
    }
}

/// Tier of a consumer that names none.
pub const DEFAULT_TIER: &str = "standard";

/// Built-in tiers: the limits that Cal.com grants its customers (FACTS §2).
const BUILT_IN: [(&str, u32); 3] = [(DEFAULT_TIER, 120), ("elevated", 200), ("premium", 800)];

const PRIORITIES: [(&str, Priority); 3] =
    [("interactive", Priority::Interactive), ("default", Priority::Default), ("batch", Priority::Batch)];

/// Largest rate that the configuration accepts, one million requests per minute. Cal.com grants nobody more.
pub(super) const MAX_PER_MINUTE: u32 = 1_000_000;

/// Returns all tiers by name: the built-in ones, with the changes and additions in `section`.
pub(super) fn read(section: Option<&Section<'_>>) -> BTreeMap<String, TierConfig> {
    let mut tiers: BTreeMap<_, _> =
        BUILT_IN.iter().map(|&(name, n)| (name.to_owned(), TierConfig::per_minute(n, n))).collect();
    for (name, tier) in section.map(Section::named_sections).unwrap_or_default() {
        let per_minute = tier.integer("requests_per_minute", 1..=MAX_PER_MINUTE);
        let burst = tier.integer("burst", 1..=MAX_PER_MINUTE);
        if tier.raw("requests_per_minute").is_none() {
            tier.missing("requests_per_minute", "set the requests that a consumer of this tier may send per minute");
        }
        // An invalid tier is kept, so that its consumers do not cause errors about an unknown tier.
        let per_minute = per_minute.unwrap_or(1);
        let read = TierConfig {
            max_wait: tier.duration("max_wait"),
            priority: tier.choice("priority", &PRIORITIES).unwrap_or_default(),
            ..TierConfig::per_minute(per_minute, burst.unwrap_or(per_minute))
        };
        tiers.insert(name.value.to_owned(), read);
        tier.reject_unknown();
    }
    tiers
}
