//! What a newer document adds, drops or moves (`calgate catalog diff`).

use std::collections::BTreeMap;
use std::fmt;

use super::Catalog;
use super::endpoint::Endpoint;
use super::version::ApiVersion;
use crate::catalog::annotations::{self, MissingAnnotation};

/// One difference between two catalogs.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Only the newer has it.
    Added(&'a Endpoint),
    /// Only the older has it.
    Dropped(&'a Endpoint),
    /// Only the older has it, and calgate knows more of it than the newer document says: if the newer has it in another
    /// place, that is lost there.
    Missing(MissingAnnotation),
    /// Both have it, with other facts.
    Moved {
        /// The endpoint as the newer has it.
        endpoint: &'a Endpoint,
        /// Each fact that differs: name, older value, newer value.
        facts: Vec<(&'static str, String, String)>,
        /// Whether only the newer document has it: the older one is a further operation (FACTS §7).
        has_caught_up: bool,
    },
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(endpoint) => {
                write!(f, "added    {endpoint}  ({})", endpoint.tag).and_then(|()| write_marks(f, endpoint))
            }
            Self::Dropped(endpoint) => {
                write!(f, "dropped  {endpoint}  ({})", endpoint.tag).and_then(|()| write_marks(f, endpoint))
            }
            Self::Missing(missing) => write!(f, "LOST     {missing}"),
            Self::Moved { endpoint, facts, has_caught_up } => {
                // The document has caught up with config/further-operations.toml.
                write!(f, "{:8} {endpoint}", if *has_caught_up { "documented" } else { "moved" })?;
                facts.iter().try_for_each(|(name, older, newer)| write!(f, "  {name}: {older} -> {newer}"))
            }
        }
    }
}

/// The facts of an endpoint that calgate adds to those of the document.
fn write_marks(f: &mut fmt::Formatter<'_>, endpoint: &Endpoint) -> fmt::Result {
    if endpoint.credential_operation {
        f.write_str("  credential_operation: true")?;
    }
    endpoint.sub_limit.map_or(Ok(()), |limit| write!(f, "  requests_per_minute: {}", limit.requests_per_minute))
}

/// Every difference, ordered by path and method; at the end what is lost.
pub fn diff<'a>(older: &'a Catalog, newer: &'a Catalog) -> Vec<Change<'a>> {
    let mut both: BTreeMap<_, (Option<&Endpoint>, Option<&Endpoint>)> = BTreeMap::new();
    for endpoint in older.endpoints() {
        both.entry(endpoint.identity()).or_default().0 = Some(endpoint);
    }
    for endpoint in newer.endpoints() {
        both.entry(endpoint.identity()).or_default().1 = Some(endpoint);
    }
    let lacked = annotations::missing(older.endpoints());
    let missing = annotations::missing(newer.endpoints())
        .into_iter()
        .filter(|missing| !lacked.contains(missing))
        .map(Change::Missing);
    let changes = both.into_values().filter_map(|pair| match pair {
        (None, Some(endpoint)) => Some(Change::Added(endpoint)),
        (Some(endpoint), None) => Some(Change::Dropped(endpoint)),
        (Some(older), Some(newer)) => {
            let facts = moved_facts(older, newer);
            let has_caught_up = newer.is_documented && !older.is_documented;
            (has_caught_up || !facts.is_empty()).then_some(Change::Moved { endpoint: newer, facts, has_caught_up })
        }
        (None, None) => None,
    });
    changes.chain(missing).collect()
}

fn moved_facts(older: &Endpoint, newer: &Endpoint) -> Vec<(&'static str, String, String)> {
    let facts = |e: &Endpoint| {
        [
            ("path", e.template.to_string()),
            ("tag", e.tag.to_string()),
            ("credential", e.accepts.name().to_owned()),
            ("public", e.public.to_string()),
            ("api_version", e.api_version.as_ref().map_or("none".to_owned(), |v| v.as_str().to_owned())),
            ("api_versions", listed(&e.api_versions)),
            ("requests_per_minute", e.sub_limit.map_or("none".to_owned(), |l| l.requests_per_minute.to_string())),
            ("credential_operation", e.credential_operation.to_string()),
            ("echoes_credential", e.echoes_credential.to_string()),
        ]
    };
    facts(older)
        .into_iter()
        .zip(facts(newer))
        .filter(|((_, older), (_, newer))| older != newer)
        .map(|((name, older), (_, newer))| (name, older, newer))
        .collect()
}

/// The versions of an operation, as a difference shows them.
fn listed(versions: &[ApiVersion]) -> String {
    let versions: Vec<_> = versions.iter().map(ApiVersion::as_str).collect();
    if versions.is_empty() { "unknown".to_owned() } else { versions.join(", ") }
}
