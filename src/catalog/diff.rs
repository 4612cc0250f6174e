//! Differences between two catalogs (`calgate catalog diff`).

use std::collections::BTreeMap;
use std::fmt;

use super::Catalog;
use super::endpoint::Endpoint;
use super::version::ApiVersion;
use crate::catalog::annotations::{self, MissingAnnotation};

/// Difference between two catalogs.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Endpoint that only the newer catalog has.
    Added(&'a Endpoint),
    /// Endpoint that only the older catalog has.
    Dropped(&'a Endpoint),
    /// Annotation of an operation that only the older catalog has. If Cal.com moved the operation, the annotation is lost.
    Missing(MissingAnnotation),
    /// Endpoint of both catalogs with different facts.
    Changed {
        /// Endpoint of the newer catalog.
        endpoint: &'a Endpoint,
        /// Facts that differ, each with its name, older value and newer value.
        facts: Vec<(&'static str, String, String)>,
        /// Whether the document has the endpoint now, which was a further operation before (FACTS §7).
        is_newly_documented: bool,
    },
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(endpoint) => {
                write!(f, "added    {endpoint}  ({})", endpoint.tag).and_then(|()| write_annotations(f, endpoint))
            }
            Self::Dropped(endpoint) => {
                write!(f, "dropped  {endpoint}  ({})", endpoint.tag).and_then(|()| write_annotations(f, endpoint))
            }
            Self::Missing(missing) => write!(f, "LOST     {missing}"),
            Self::Changed { endpoint, facts, is_newly_documented } => {
                write!(f, "{:8} {endpoint}", if *is_newly_documented { "documented" } else { "moved" })?;
                facts.iter().try_for_each(|(name, older, newer)| write!(f, "  {name}: {older} -> {newer}"))
            }
        }
    }
}

/// Writes the annotations of an endpoint.
fn write_annotations(f: &mut fmt::Formatter<'_>, endpoint: &Endpoint) -> fmt::Result {
    if endpoint.credential_operation {
        f.write_str("  credential_operation: true")?;
    }
    endpoint.sub_limit.map_or(Ok(()), |limit| write!(f, "  requests_per_minute: {}", limit.requests_per_minute))
}

/// Returns all differences, ordered by path and method, and then the missing annotations.
pub fn diff<'a>(older: &'a Catalog, newer: &'a Catalog) -> Vec<Change<'a>> {
    let mut both: BTreeMap<_, (Option<&Endpoint>, Option<&Endpoint>)> = BTreeMap::new();
    for endpoint in older.endpoints() {
        both.entry(endpoint.identity()).or_default().0 = Some(endpoint);
    }
    for endpoint in newer.endpoints() {
        both.entry(endpoint.identity()).or_default().1 = Some(endpoint);
    }
    let missing_before = annotations::missing(older.endpoints());
    let missing = annotations::missing(newer.endpoints())
        .into_iter()
        .filter(|missing| !missing_before.contains(missing))
        .map(Change::Missing);
    let changes = both.into_values().filter_map(|pair| match pair {
        (None, Some(endpoint)) => Some(Change::Added(endpoint)),
        (Some(endpoint), None) => Some(Change::Dropped(endpoint)),
        (Some(older), Some(newer)) => {
            let facts = changed_facts(older, newer);
            let is_newly_documented = newer.is_documented && !older.is_documented;
            (is_newly_documented || !facts.is_empty()).then_some(Change::Changed {
                endpoint: newer,
                facts,
                is_newly_documented,
            })
        }
        (None, None) => None,
    });
    changes.chain(missing).collect()
}

fn changed_facts(older: &Endpoint, newer: &Endpoint) -> Vec<(&'static str, String, String)> {
    let facts = |e: &Endpoint| {
        [
            ("path", e.template.to_string()),
            ("tag", e.tag.to_string()),
            ("credential", e.accepts.name().to_owned()),
            ("public", e.public.to_string()),
            ("api_version", e.api_version.as_ref().map_or("none".to_owned(), |v| v.as_str().to_owned())),
            ("api_versions", version_list(&e.api_versions)),
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

/// Returns the versions of an operation as text.
fn version_list(versions: &[ApiVersion]) -> String {
    let versions: Vec<_> = versions.iter().map(ApiVersion::as_str).collect();
    if versions.is_empty() { "unknown".to_owned() } else { versions.join(", ") }
}
