//! `[passthrough]`: callers that bring a Cal.com credential of their own.

use std::collections::BTreeMap;

use super::consumers::reference;
use super::credentials::plan_name;
use super::plans::PlanLists;
use super::section::Section;
use super::tiers::{DEFAULT_TIER, TierConfig};
use crate::identify::Passthrough;

/// Settings of `[passthrough]` where it is enabled.
#[derive(Debug, Clone)]
pub struct PassthroughConfig {
    /// Forms of credentials that callers may bring.
    pub forms: Passthrough,
    /// Plan of these callers.
    pub plan: String,
    /// Tier of these callers.
    pub tier: Box<str>,
}

impl PassthroughConfig {
    pub(super) fn read(
        section: &Section<'_>,
        plans: &BTreeMap<String, PlanLists>,
        tiers: &BTreeMap<String, TierConfig>,
    ) -> Option<Self> {
        let enabled = section.boolean("enabled").unwrap_or(false);
        let forms = Passthrough {
            test_keys: section.boolean("test_keys").unwrap_or(true),
            live_keys: section.boolean("live_keys").unwrap_or(true),
        };
        let tier = reference(section, "tier", tiers.keys(), Some(DEFAULT_TIER));
        let plan = if enabled || section.raw("plan").is_some() { plan_name(section, plans) } else { None };
        let (plan, tier) = plan.zip(tier)?;
        enabled.then_some(Self { forms, plan, tier })
    }
}
