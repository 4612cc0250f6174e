//! `[plans.NAME]` and `[entitlements]`: the plans of Cal.com's customers, and whether calgate enforces them.

use std::collections::BTreeMap;

use super::diagnostics::{Diagnostics, known_names};
use super::section::{Section, Spanned};
use crate::catalog::{Catalog, Prefix};
use crate::entitle::{EntitlementMode, TagRule};

/// Built-in plans (FACTS §3), in the syntax of a configuration.
const BUILT_IN: &str = include_str!("../../config/plans.toml");

/// Tag rules of a plan.
#[derive(Debug, Clone, Default)]
pub struct PlanLists {
    /// Tags that the plan includes.
    pub allow: Vec<TagRule>,
    /// Tags that the plan excludes, even if `allow` lists them.
    pub deny: Vec<TagRule>,
}

/// Returns all plans by name: the built-in ones, with the changes and additions in `section`.
pub(super) fn read(section: Option<&Section<'_>>, catalog: &Catalog) -> BTreeMap<String, PlanLists> {
    let mut plans = built_in();
    for (name, plan) in section.map(Section::named_sections).unwrap_or_default() {
        let base = plans.get(name.value).cloned().unwrap_or_default();
        let list = |key| plan.strings(key).map(|list| tag_rules(&plan, &list.value, catalog));
        let lists = PlanLists { allow: list("allow").unwrap_or(base.allow), deny: list("deny").unwrap_or(base.deny) };
        if lists.allow.is_empty() {
            let help = "list the tags that the plan includes in `allow`".to_owned();
            plan.error(plan.span.clone(), format!("`{}` allows nothing", plan.path), help);
        }
        plans.insert(name.value.to_owned(), lists);
        plan.reject_unknown();
    }
    plans
}

fn built_in() -> BTreeMap<String, PlanLists> {
    let diagnostics = Diagnostics::default();
    let (document, _) = toml::de::DeTable::parse_recoverable(BUILT_IN);
    let section = Section::new("plans", document.get_ref(), 0..0, &diagnostics);
    let lists = |plan: &Section<'_>, key| {
        let list = plan.strings(key).map(|list| list.value).unwrap_or_default();
        list.iter().map(|tag| TagRule::new(tag.value)).collect()
    };
    let plans = section.named_sections();
    plans
        .iter()
        .map(|(name, plan)| {
            (name.value.to_owned(), PlanLists { allow: lists(plan, "allow"), deny: lists(plan, "deny") })
        })
        .collect()
}

/// Reads a list of tags. The catalog has to know each of them.
pub(super) fn tag_rules(section: &Section<'_>, list: &[Spanned<&str>], catalog: &Catalog) -> Vec<TagRule> {
    let rule = |entry: &Spanned<&str>| {
        let rule = TagRule::new(entry.value);
        if !rule.is_known(catalog) {
            let tags = catalog.endpoints().iter().map(|e| e.tag.as_str());
            let help = known_names(entry.value, tags.chain(Prefix::ALL.map(Prefix::name)))
                + "; `calgate catalog list` prints them";
            section.error(entry.span.clone(), format!("unknown tag `{}`", entry.value), help);
        }
        rule
    };
    list.iter().map(rule).collect()
}

/// Reads `[entitlements] mode`.
pub(super) fn read_mode(section: &Section<'_>) -> EntitlementMode {
    section
        .choice("mode", &[("enforce", EntitlementMode::Enforce), ("observe", EntitlementMode::Observe)])
        .unwrap_or_default()
}
