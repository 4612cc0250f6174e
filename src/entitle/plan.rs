//! Plans: lists of tags a Cal.com customer has and has not (FACTS §3), as data.

use std::sync::Arc;

use crate::catalog::{CanonicalPath, Catalog, Endpoint, Prefix, Tag};
use crate::refusal::Rule;

/// One entry of an `allow` or `deny` list: a tag and all under it, or `(unprefixed)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRule(Arc<str>);

impl TagRule {
    /// Takes an entry as a config writes it.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether it covers `tag`.
    pub fn covers(&self, tag: &Tag) -> bool {
        if *self.0 == *Prefix::Unprefixed.name() { tag.prefix() == Prefix::Unprefixed } else { tag.is_under(&self.0) }
    }

    /// Whether it names a prefix, or a tag that some endpoint of the catalog lies under.
    pub fn is_known(&self, catalog: &Catalog) -> bool {
        Prefix::ALL.iter().any(|p| *p.name() == *self.0) || catalog.endpoints().iter().any(|e| self.covers(&e.tag))
    }

    /// Whether it covers everything of `prefix`.
    fn covers_whole(&self, prefix: Prefix) -> bool {
        *self.0 == *prefix.name()
    }

    /// Whether it covers anything of `prefix`.
    fn overlaps(&self, prefix: Prefix) -> bool {
        self.covers_whole(prefix) || Tag::canonical(&self.0).is_ok_and(|tag| tag.prefix() == prefix)
    }

    /// The entry as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A plan, compiled against a catalog.
#[derive(Debug)]
pub struct Plan {
    name: Arc<str>,
    allow: Vec<TagRule>,
    deny: Vec<TagRule>,
    /// By endpoint: the rule that refuses it.
    refusals: Box<[Option<Rule>]>,
}

impl Plan {
    /// Decides every endpoint of `catalog` once. Deny wins over allow; what neither list covers is refused.
    pub fn compile(name: &str, allow: Vec<TagRule>, deny: Vec<TagRule>, catalog: &Catalog) -> Self {
        let mut plan = Self { name: name.into(), allow, deny, refusals: Box::default() };
        plan.refusals = catalog.endpoints().iter().map(|e| plan.deny_rule_for_tag(&e.tag)).collect();
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

    /// The plan's name in the config.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The rule that refuses an endpoint of the catalog, if one does.
    pub fn deny_rule(&self, endpoint: &Endpoint) -> Option<&Rule> {
        self.refusals.get(endpoint.id.index()).and_then(Option::as_ref)
    }

    /// The rule that refuses a path outside the catalog: its tag cannot be known, so the plan has to allow the whole
    /// prefix that the path lies under.
    pub(super) fn deny_rule_for_unknown(&self, path: &CanonicalPath<'_>) -> Option<Rule> {
        let segments: Vec<_> = path.segments().skip(1).collect();
        let prefix = Prefix::of_unknown_path(segments.iter().copied());
        let whole = self.allow.iter().any(|r| r.covers_whole(prefix)) && !self.deny.iter().any(|r| r.overlaps(prefix));
        let name = &self.name;
        (!whole).then(|| Rule::new(format!("plan \"{name}\" does not allow all of {}", prefix.name())))
    }
}
