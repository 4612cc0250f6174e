//! A consumer's own restriction: `tags`, `methods` and `endpoints` of its config section, each of which has to hold.

use http::Method;

use crate::catalog::{Catalog, Endpoint, EndpointId};
use crate::entitle::TagRule;
use crate::refusal::Rule;

/// What a consumer is narrowed to, compiled against a catalog.
#[derive(Debug)]
pub struct Restriction {
    /// By endpoint: the rule that refuses it.
    refusals: Box<[Option<Rule>]>,
}

impl Restriction {
    /// Decides every endpoint of `catalog` once. A list that is `None` does not narrow; an empty one refuses all.
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
            Some(Rule::new(format!("the consumer's own {list} leave out \"{endpoint}\" (tag \"{}\")", endpoint.tag)))
        };
        Self { refusals: catalog.endpoints().iter().map(deny_rule).collect() }
    }

    pub(super) fn deny_rule(&self, endpoint: &Endpoint) -> Option<&Rule> {
        self.refusals.get(endpoint.id.index()).and_then(Option::as_ref)
    }

    /// A narrowed consumer never gets what the catalog cannot name.
    #[expect(clippy::unused_self, reason = "the rule is of this restriction, like `deny_rule`")]
    pub(super) fn deny_rule_for_unknown(&self) -> Rule {
        Rule::new("the consumer is narrowed to operations that the catalog knows")
    }
}
