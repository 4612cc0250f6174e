//! What a newer document adds, drops or moves (`calgate catalog diff`).

use std::collections::BTreeMap;
use std::fmt;

use super::Catalog;
use super::endpoint::Endpoint;

/// One difference between two catalogs.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Only the newer has it.
    Added(&'a Endpoint),
    /// Only the older has it.
    Dropped(&'a Endpoint),
    /// Both have it, with other facts.
    Moved {
        /// The endpoint as the newer has it.
        endpoint: &'a Endpoint,
        /// Each fact that differs: name, older value, newer value.
        facts: Vec<(&'static str, String, String)>,
    },
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(endpoint) => write!(f, "added    {endpoint}  ({})", endpoint.tag),
            Self::Dropped(endpoint) => write!(f, "dropped  {endpoint}  ({})", endpoint.tag),
            Self::Moved { endpoint, facts } => {
                write!(f, "moved    {endpoint}")?;
                facts.iter().try_for_each(|(name, older, newer)| write!(f, "  {name}: {older} -> {newer}"))
            }
        }
    }
}

/// Every difference, ordered by path and method.
pub fn diff<'a>(older: &'a Catalog, newer: &'a Catalog) -> Vec<Change<'a>> {
    let mut both: BTreeMap<_, (Option<&Endpoint>, Option<&Endpoint>)> = BTreeMap::new();
    for endpoint in older.endpoints() {
        both.entry(endpoint.sort_key()).or_default().0 = Some(endpoint);
    }
    for endpoint in newer.endpoints() {
        both.entry(endpoint.sort_key()).or_default().1 = Some(endpoint);
    }
    both.into_values()
        .filter_map(|pair| match pair {
            (None, Some(endpoint)) => Some(Change::Added(endpoint)),
            (Some(endpoint), None) => Some(Change::Dropped(endpoint)),
            (Some(older), Some(newer)) => {
                let facts = moved_facts(older, newer);
                (!facts.is_empty()).then_some(Change::Moved { endpoint: newer, facts })
            }
            (None, None) => None,
        })
        .collect()
}

fn moved_facts(older: &Endpoint, newer: &Endpoint) -> Vec<(&'static str, String, String)> {
    let facts = |e: &Endpoint| {
        [
            ("tag", e.tag.to_string()),
            ("credential", e.accepts.name().to_owned()),
            ("public", e.public.to_string()),
            ("api_version", e.api_version.as_ref().map_or("none".to_owned(), |v| v.as_str().to_owned())),
            ("requests_per_minute", e.sub_limit.map_or("none".to_owned(), |l| l.requests_per_minute.to_string())),
            ("credential_operation", e.credential_operation.to_string()),
        ]
    };
    facts(older)
        .into_iter()
        .zip(facts(newer))
        .filter(|((_, older), (_, newer))| older != newer)
        .map(|((name, older), (_, newer))| (name, older, newer))
        .collect()
}
