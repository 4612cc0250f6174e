//! Plans of Cal.com's customers: lists of the tags that a plan includes and excludes (FACTS §3).

use std::sync::Arc;

use crate::catalog::{CanonicalPath, Catalog, Endpoint, Prefix, Tag};
use crate::refusal::Rule;

/// Entry of an `allow` or `deny` list. It covers a tag and all tags under it, or `(unprefixed)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRule(Arc<str>);

impl TagRule {
    /// Takes an entry as the configuration writes it.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns whether the rule covers `tag`.
    pub fn covers(&self, tag: &Tag) -> bool {
        if *self.0 == *Prefix::Unprefixed.name() { tag.prefix() == Prefix::Unprefixed } else { tag.is_under(&self.0) }
    }

    /// Returns whether the rule names a prefix or covers the tag of an endpoint in the catalog.
    pub fn is_known(&self, catalog: &Catalog) -> bool {
        Prefix::ALL.iter().any(|p| *p.name() == *self.0) || catalog.endpoints().iter().any(|e| self.covers(&e.tag))
    }

    /// Returns whether the rule covers all tags of `prefix`.
    fn covers_whole(&self, prefix: Prefix) -> bool {
        *self.0 == *prefix.name()
    }

    /// Returns whether the rule covers a tag of `prefix`.
    fn overlaps(&self, prefix: Prefix) -> bool {
        self.covers_whole(prefix) || Tag::canonical(&self.0).is_ok_and(|tag| tag.prefix() == prefix)
    }

    /// Returns the entry as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Plan with its decision about each endpoint of a catalog.
#[derive(Debug)]
pub struct Plan {
    name: Arc<str>,
    allow: Vec<TagRule>,
    deny: Vec<TagRule>,
    /// Rule that denies the endpoint, by the index of the endpoint.
    deny_rules: Box<[Option<Rule>]>,
}

impl Plan {
    /// Decides about each endpoint of `catalog`. Deny takes precedence over allow. Endpoints that neither list covers are denied.
    pub fn compile(name: &str, allow: Vec<TagRule>, deny: Vec<TagRule>, catalog: &Catalog) -> Self {
        let mut plan = Self { name: name.into(), allow, deny, deny_rules: Box::default() };
        plan.deny_rules = catalog.endpoints().iter().map(|e| plan.deny_rule_for_tag(&e.tag)).collect();
        plan
    }

    fn deny_rule_for_tag(&self, tag: &Tag) -> Option<Rule> {
        let name = &self.name;
        if let Some(deny) = self.deny.iter().find(|rule| rule.covers(tag)) {
            return Some(Rule::new(format!("plan \"{name}\" denies \"{}\" (the tag is \"{tag}\")", deny.as_str())));
        }
        let allowed = self.allow.iter().any(|rule| rule.covers(tag));
        (!allowed).then(|| Rule::new(format!("plan \"{name}\" does not allow the tag \"{tag}\"")))
    }

    /// Returns the name of the plan in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the rule that denies an endpoint of the catalog, if there is one.
    pub fn deny_rule(&self, endpoint: &Endpoint) -> Option<&Rule> {
        self.deny_rules.get(endpoint.id.index()).and_then(Option::as_ref)
    }

    /// Returns the rule that denies a path outside the catalog. The tag of the path is unknown, so the plan must allow the whole
    /// prefix of the path.
    pub(super) fn deny_rule_for_unknown(&self, path: &CanonicalPath<'_>) -> Option<Rule> {
        let segments: Vec<_> = path.segments().skip(1).collect();
        let prefix = Prefix::of_unknown_path(segments.iter().copied());
        let whole = self.allow.iter().any(|r| r.covers_whole(prefix)) && !self.deny.iter().any(|r| r.overlaps(prefix));
        let name = &self.name;
        (!whole).then(|| Rule::new(format!("plan \"{name}\" does not allow all of {}", prefix.name())))
    }
}
