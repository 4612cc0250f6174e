//! Entries of `[listen] cors_origins`, in the one form in which browsers send an origin (RFC 6454 §6.2).

use std::net::{Ipv4Addr, Ipv6Addr};

use http::Uri;

use super::upstream::port_of;

/// Parses an origin: scheme, host and port, nothing else.
///
/// # Errors
/// The reason why no browser sends this origin.
pub(super) fn read(text: &str) -> Result<String, &'static str> {
    let text = text.to_ascii_lowercase();
    let uri: Uri = text.parse().map_err(|_| "it is not a URL")?;
    let (Some(scheme @ ("https" | "http")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err("it must begin with https:// or http://");
    };
    if authority.as_str().contains('@') || text != format!("{scheme}://{authority}") {
        return Err("it must not have a user, path, query or fragment");
    }
    let host = host(authority.host()).ok_or("browsers send no such host")?;
    match (port_of(authority)?, scheme) {
        (Some(443), "https") | (Some(80), "http") => Err("browsers omit the default port, so remove it"),
        (Some(port), _) => Ok(format!("{scheme}://{host}:{port}")),
        (None, _) => Ok(format!("{scheme}://{host}")),
    }
}

/// Parses a host: a name, or an address as browsers write it.
fn host(text: &str) -> Option<String> {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address = address.parse::<Ipv6Addr>().ok()?;
        return address.to_ipv4_mapped().is_none().then(|| format!("[{address}]"));
    }
    let labels: Vec<&str> = text.strip_suffix('.').unwrap_or(text).split('.').collect();
    let is_label = |label: &&str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    // Browsers take every host whose last label starts with a digit for an address.
    let is_address = labels.last().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_digit()));
    let is_good = labels.iter().all(is_label) && (!is_address || text.parse::<Ipv4Addr>().is_ok());
    is_good.then(|| text.to_owned())
}
