//! `[tiers.NAME]`: how many requests a minute, and how many at once.

use std::collections::BTreeMap;

use super::reader::Section;
use crate::limit::Quota;

/// The tier of a consumer that names none.
pub const DEFAULT_TIER: &str = "standard";

/// The shipped tiers: Cal.com's own steps (FACTS §2).
const SHIPPED: [(&str, u32); 3] = [(DEFAULT_TIER, 120), ("elevated", 200), ("premium", 800)];

/// More than this many a minute is no limit that Cal.com gives anyone.
pub(super) const MOST_PER_MINUTE: u32 = 1_000_000;

/// All tiers by name: the shipped ones, changed and added to by `section`.
pub(super) fn read(section: Option<&Section<'_>>) -> BTreeMap<String, Quota> {
    let mut tiers: BTreeMap<_, _> =
        SHIPPED.iter().map(|&(name, n)| (name.to_owned(), Quota::per_minute(n, n))).collect();
    for (name, tier) in section.map(Section::named_sections).unwrap_or_default() {
        let per_minute = tier.integer("requests_per_minute", 1..=MOST_PER_MINUTE);
        let burst = tier.integer("burst", 1..=MOST_PER_MINUTE);
        if tier.raw("requests_per_minute").is_none() {
            tier.missing("requests_per_minute", "a tier is at least that");
        }
        // A tier with a mistake is there all the same, so that its users are not told that it is unknown.
        let per_minute = per_minute.unwrap_or(1);
        tiers.insert(name.value.to_owned(), Quota::per_minute(per_minute, burst.unwrap_or(per_minute)));
        tier.finish();
    }
    tiers
}
