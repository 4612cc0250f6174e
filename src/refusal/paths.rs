//! Messages about paths and methods that the catalog does not contain.

/// Message about an unknown path.
pub(super) fn unknown_endpoint(path: &str, advice: Option<&str>) -> String {
    let advice = advice.unwrap_or("Check the path.");
    format!(
        "The gateway's catalog has no path {path}. {advice} An operator can renew the catalog with `calgate catalog import`, \
         or forward unknown paths with catalog.unknown_endpoints."
    )
}

/// Message about a method that a path does not support. `path` is empty if no path supports it.
pub(super) fn method_not_allowed(path: &str, allow: &str) -> String {
    let allow = allow.rsplit_once(", ").map_or_else(|| allow.to_owned(), |(most, last)| format!("{most} and {last}"));
    if path.is_empty() {
        return format!("No path supports this method. The methods of the API are {allow}.");
    }
    format!("The path {path} does not support this method. It supports {allow}.")
}
