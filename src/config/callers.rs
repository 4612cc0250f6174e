//! `[anonymous]` and `[passthrough]`: callers without a gateway key.

use std::collections::BTreeMap;

use super::consumers::reference;
use super::credentials::plan_name;
use super::plans::PlanLists;
use super::problem::known_names;
use super::reader::Section;
use super::tiers::{DEFAULT_TIER, MOST_PER_MINUTE, TierConfig};
use crate::identify::Passthrough;

/// What Cal.com gives an address without authentication (FACTS §2).
const ANONYMOUS_PER_MINUTE: u32 = 120;

/// `[anonymous]`
#[derive(Debug, Clone)]
pub struct Anonymous {
    /// The consumer that callers without a key are.
    pub consumer: Option<Box<str>>,
    /// Where there is no such consumer: requests a minute, for each client address.
    pub requests_per_minute: u32,
}

impl Default for Anonymous {
    fn default() -> Self {
        Self { consumer: None, requests_per_minute: ANONYMOUS_PER_MINUTE }
    }
}

impl Anonymous {
    pub(super) fn read<'k>(section: &Section<'_>, consumers: impl Iterator<Item = &'k String> + Clone) -> Self {
        let consumer = section.string("consumer");
        if let Some(name) = consumer.as_ref().filter(|name| !consumers.clone().any(|known| known == name.value)) {
            let help = known_names(name.value, consumers.map(String::as_str));
            section.wrong(name.span.clone(), format!("unknown consumer `{}`", name.value), help);
        }
        let per_minute = section.integer("requests_per_minute", 1..=MOST_PER_MINUTE);
        Self {
            consumer: consumer.map(|name| name.value.into()),
            requests_per_minute: per_minute.unwrap_or(ANONYMOUS_PER_MINUTE),
        }
    }
}

/// `[passthrough]`, where it is enabled.
#[derive(Debug, Clone)]
pub struct PassthroughConfig {
    /// Which credentials callers may bring.
    pub forms: Passthrough,
    /// The plan they are held to.
    pub plan: String,
    /// The tier they are held to.
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
