//! Messages about paths and methods that the catalog does not hold.

/// What a client is told about a path that the catalog does not hold.
pub(super) fn unknown_endpoint(path: &str, advice: Option<&str>) -> String {
    let advice = advice.unwrap_or("Check the path.");
    format!(
        "The gateway's catalog has no path {path}. {advice} An operator can renew the catalog with `calgate catalog import`, \
         or forward unknown paths with catalog.unknown_endpoints."
    )
}

/// What a client is told about a method that a path does not take; no path, where no path takes it.
pub(super) fn method_not_allowed(path: &str, allow: &str) -> String {
    let allow = allow.rsplit_once(", ").map_or_else(|| allow.to_owned(), |(most, last)| format!("{most} and {last}"));
    if path.is_empty() {
        return format!("No path takes this method. The methods of the API are {allow}.");
    }
    format!("The path {path} does not take this method. It takes {allow}.")
}
