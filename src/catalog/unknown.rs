//! Refusals of paths outside the catalog, with advice for the client.

use super::path::CanonicalPath;
use crate::catalog::router::PathRouter;
use crate::refusal::Refusal;

/// Returns the refusal of a path that no template matches, with the probable mistake of the client.
pub(super) fn refuse(path: &CanonicalPath<'_>, router: &PathRouter) -> Refusal {
    let mut segments = path.segments().map(str::to_ascii_lowercase);
    let (first, second) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
    if first == "v1" || (first == "api" && second == "v1") {
        return Refusal::ApiV1Gone;
    }
    let redacted = path.redacted();
    let advice = match (first.as_str(), second.as_str()) {
        ("v2", "v2") => {
            Some("The path has /v2 twice: the client's base URL ends with /v2, and the client adds it.".to_owned())
        }
        ("v2", "ee") | ("api", "v2") => {
            Some("Leave out the alias: paths begin with /v2, without /api or /ee.".to_owned())
        }
        ("v2", _) => router.suggest(path).map(|similar| format!("Is {similar} meant?")),
        _ => {
            Some(format!("Paths begin with /v2, as in /v2{}.", if redacted == "/" { "/me" } else { redacted.as_str() }))
        }
    };
    Refusal::UnknownEndpoint { path: redacted.into(), advice: advice.map(Into::into) }
}
