//! `[tiers.NAME]`: how many requests a minute, how many at once, and how they wait for Cal.com.

use std::collections::BTreeMap;
use std::time::Duration;

use super::reader::Section;
use crate::ratelimit::Quota;
use crate::ratelimit::fair_queue::Priority;

/// A configured tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierConfig {
    /// Size and pace of its consumers' buckets.
    pub quota: Quota,
    /// What its consumers' parts of a credential are measured by.
    pub requests_per_minute: u32,
    /// How long its requests may wait for their credential's budget; `[budget] max_wait` where it is not said.
    pub max_wait: Option<Duration>,
    /// Which of them go first.
    pub priority: Priority,
}

impl TierConfig {
    fn per_minute(n: u32, burst: u32) -> Self {
        let quota = Quota::per_minute(n, burst);
        Self { quota, requests_per_minute: n, max_wait: None, priority: Priority::Default }
    }
}

/// The tier of a consumer that names none.
pub const DEFAULT_TIER: &str = "standard";

/// The shipped tiers: Cal.com's own steps (FACTS §2).
const SHIPPED: [(&str, u32); 3] = [(DEFAULT_TIER, 120), ("elevated", 200), ("premium", 800)];

const PRIORITIES: [(&str, Priority); 3] =
    [("interactive", Priority::Interactive), ("default", Priority::Default), ("batch", Priority::Batch)];

/// More than this many a minute is no limit that Cal.com gives anyone.
pub(super) const MOST_PER_MINUTE: u32 = 1_000_000;

/// All tiers by name: the shipped ones, changed and added to by `section`.
pub(super) fn read(section: Option<&Section<'_>>) -> BTreeMap<String, TierConfig> {
    let mut tiers: BTreeMap<_, _> =
        SHIPPED.iter().map(|&(name, n)| (name.to_owned(), TierConfig::per_minute(n, n))).collect();
    for (name, tier) in section.map(Section::named_sections).unwrap_or_default() {
        let per_minute = tier.integer("requests_per_minute", 1..=MOST_PER_MINUTE);
        let burst = tier.integer("burst", 1..=MOST_PER_MINUTE);
        if tier.raw("requests_per_minute").is_none() {
            tier.missing("requests_per_minute", "a tier is at least that");
        }
        // A tier with a mistake is there all the same, so that its users are not told that it is unknown.
        let per_minute = per_minute.unwrap_or(1);
        let read = TierConfig {
            max_wait: tier.duration("max_wait"),
            priority: tier.choice("priority", &PRIORITIES).unwrap_or_default(),
            ..TierConfig::per_minute(per_minute, burst.unwrap_or(per_minute))
        };
        tiers.insert(name.value.to_owned(), read);
        tier.finish();
    }
    tiers
}
