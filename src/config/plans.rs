//! `[plans.NAME]` and `[entitlements]`: what Cal.com's customers have, on top of the built-in plans.

use std::collections::BTreeMap;

use super::problem::{Problems, known_names};
use super::reader::{Located, Section};
use crate::catalog::{Catalog, Prefix};
use crate::entitle::{Mode, TagRule};

/// The built-in plans (FACTS §3), in the form a configuration has them.
const BUILT_IN: &str = include_str!("../../config/plans.toml");

/// The two lists of a plan.
#[derive(Debug, Clone, Default)]
pub struct PlanLists {
    /// What it has.
    pub allow: Vec<TagRule>,
    /// What it has not, whatever `allow` says.
    pub deny: Vec<TagRule>,
}

/// All plans by name: the built-in ones, changed and added to by `section`.
pub(super) fn read(section: Option<&Section<'_>>, catalog: &Catalog) -> BTreeMap<String, PlanLists> {
    let mut plans = built_in();
    for (name, plan) in section.map(Section::named_sections).unwrap_or_default() {
        let base = plans.get(name.value).cloned().unwrap_or_default();
        let list = |key| plan.strings(key).map(|list| tag_rules(&plan, &list.value, catalog));
        let lists = PlanLists { allow: list("allow").unwrap_or(base.allow), deny: list("deny").unwrap_or(base.deny) };
        if lists.allow.is_empty() {
            let help = "list the tags it has in `allow`".to_owned();
            plan.wrong(plan.span.clone(), format!("`{}` allows nothing", plan.path), help);
        }
        plans.insert(name.value.to_owned(), lists);
        plan.finish();
    }
    plans
}

fn built_in() -> BTreeMap<String, PlanLists> {
    let problems = Problems::default();
    let (document, _) = toml::de::DeTable::parse_recoverable(BUILT_IN);
    let section = Section::new("plans", document.get_ref(), 0..0, &problems);
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

/// Reads tags of a list, each of which the catalog has to know.
pub(super) fn tag_rules(section: &Section<'_>, list: &[Located<&str>], catalog: &Catalog) -> Vec<TagRule> {
    let rule = |entry: &Located<&str>| {
        let rule = TagRule::new(entry.value);
        if !rule.is_known(catalog) {
            let tags = catalog.endpoints().iter().map(|e| e.tag.as_str());
            let help = known_names(entry.value, tags.chain(Prefix::ALL.map(Prefix::name)))
                + "; `calgate catalog list` prints them";
            section.wrong(entry.span.clone(), format!("unknown tag `{}`", entry.value), help);
        }
        rule
    };
    list.iter().map(rule).collect()
}

/// `[entitlements] mode`.
pub(super) fn read_mode(section: &Section<'_>) -> Mode {
    section.choice("mode", &[("enforce", Mode::Enforce), ("observe", Mode::Observe)]).unwrap_or_default()
}
