//! Advice for a request whose path the catalog does not hold.

use super::path::CanonicalPath;
use crate::catalog::router::PathRouter;
use crate::refusal::Refusal;

/// The refusal of a path that no template fits: what the path is, and what may be wrong with it.
pub(super) fn refuse(path: &CanonicalPath<'_>, router: &PathRouter) -> Refusal {
    let mut segments = path.segments().map(str::to_ascii_lowercase);
    let (first, second) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
    if first == "v1" || (first == "api" && second == "v1") {
        return Refusal::ApiV1Gone;
    }
    let shown = path.redacted();
    let advice = match (first.as_str(), second.as_str()) {
        ("v2", "v2") => {
            Some("The path has /v2 twice: the client's base URL ends with /v2, and the client adds it.".to_owned())
        }
        ("v2", "ee") | ("api", "v2") => {
            Some("Leave out the alias: paths begin with /v2, without /api or /ee.".to_owned())
        }
        ("v2", _) => router.suggest(path).map(|similar| format!("Is {similar} meant?")),
        _ => Some(format!("Paths begin with /v2, as in /v2{}.", if shown == "/" { "/me" } else { shown.as_str() })),
    };
    Refusal::UnknownEndpoint { path: shown.into(), advice: advice.map(Into::into) }
}
