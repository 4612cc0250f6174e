//! Restrictions of consumers: the lists `tags`, `methods` and `endpoints`. An operation must satisfy each list.

use http::Method;

use crate::catalog::{Catalog, Endpoint, EndpointId};
use crate::entitle::TagRule;
use crate::refusal::Rule;

/// Restriction of a consumer with its decision about each endpoint of a catalog.
#[derive(Debug)]
pub struct Restriction {
    /// Rule that denies the endpoint, by the index of the endpoint.
    deny_rules: Box<[Option<Rule>]>,
}

impl Restriction {
    /// Decides about each endpoint of `catalog`. A list that is `None` does not restrict, and an empty list denies everything.
    pub fn compile(
        tags: Option<&[TagRule]>,
        methods: Option<&[Method]>,
        endpoints: Option<&[EndpointId]>,
        catalog: &Catalog,
    ) -> Self {
        let deny_rule = |endpoint: &Endpoint| {
            let list = if tags.is_some_and(|tags| !tags.iter().any(|rule| rule.covers(&endpoint.tag))) {
                "tags"
            } else if methods.is_some_and(|methods| !methods.contains(&endpoint.method)) {
                "methods"
            } else if endpoints.is_some_and(|ids| !ids.contains(&endpoint.id)) {
                "endpoints"
            } else {
                return None;
            };
            Some(Rule::new(format!(
                "the restriction `{list}` of the consumer excludes \"{endpoint}\" (tag \"{}\")",
                endpoint.tag
            )))
        };
        Self { deny_rules: catalog.endpoints().iter().map(deny_rule).collect() }
    }

    pub(super) fn deny_rule(&self, endpoint: &Endpoint) -> Option<&Rule> {
        self.deny_rules.get(endpoint.id.index()).and_then(Option::as_ref)
    }

    /// Returns the rule for operations outside the catalog. The lists cannot name them, so a restricted consumer has none.
    #[expect(clippy::unused_self, reason = "the rule belongs to a restriction, like `deny_rule`")]
    pub(super) fn deny_rule_for_unknown(&self) -> Rule {
        Rule::new("the consumer is restricted to operations in the catalog")
    }
}
