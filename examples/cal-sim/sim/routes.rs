//! Finds the operation of a path as `NestJS` on Express does, which is more lenient than calgate (FACTS §4, §5).

use calgate::catalog::endpoint::Segment;
use calgate::catalog::version::OLDEST_VERSION;
use calgate::catalog::{Catalog, Endpoint};
use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;

/// Operation with its decoded parameters.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) endpoint: &'static Endpoint,
    pub(super) parameters: Vec<(String, String)>,
    /// API version of the request.
    pub(super) version: String,
}

impl Route {
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Reason why a path has no operation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoRoute {
    Unknown,
    BrokenEscape,
}

/// Finds the operation of a request.
pub(super) fn find(method: &Method, path: &str, headers: &HeaderMap) -> Result<Route, NoRoute> {
    let path = rewritten(path);
    let body = path.strip_prefix('/').ok_or(NoRoute::Unknown)?;
    let given: Vec<&str> = body.strip_suffix('/').unwrap_or(body).split('/').collect();
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let version = version(headers);
    // The catalog is sorted by template, so a literal precedes a parameter.
    let endpoint = Catalog::built_in().endpoints().iter().find(|endpoint| {
        let versions = &endpoint.api_versions;
        let is_there = versions.is_empty() || versions.iter().any(|own| own.as_str() == version);
        endpoint.method == *method && is_there && fits(endpoint.template.segments(), &given)
    });
    let endpoint = endpoint.ok_or(NoRoute::Unknown)?;
    let parameters = endpoint.template.segments().iter().zip(&given).filter_map(|(segment, given)| match segment {
        Segment::Literal(_) => None,
        Segment::Parameter(name) => Some(decoded(given).map(|value| (name.to_string(), value))),
    });
    Ok(Route { endpoint, parameters: parameters.collect::<Result<_, _>>()?, version })
}

/// Compares literals case-insensitively and without decoding. A parameter matches any non-empty segment.
fn fits(template: &[Segment], given: &[&str]) -> bool {
    template.len() == given.len()
        && template.iter().zip(given).all(|(segment, given)| match segment {
            Segment::Literal(text) => text.eq_ignore_ascii_case(given),
            Segment::Parameter(_) => !given.is_empty(),
        })
}

/// Rewrites the aliases of paths, and the misspelling at any place.
fn rewritten(path: &str) -> String {
    let path = path.replace("reccuring", "recurring");
    let path = path.strip_prefix("/api").filter(|rest| rest.starts_with("/v2")).unwrap_or(&path);
    match path.strip_prefix("/v2/ee") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("/v2{rest}"),
        _ => path.to_owned(),
    }
}

/// Returns the version of a request. An unknown or absent version means the oldest one.
fn version(headers: &HeaderMap) -> String {
    let given = headers.get("cal-api-version").and_then(|value| value.to_str().ok());
    let mut known = Catalog::built_in().endpoints().iter().flat_map(|endpoint| &endpoint.api_versions);
    let known = given.filter(|given| known.any(|known| known.as_str() == *given));
    known.unwrap_or(OLDEST_VERSION).to_owned()
}

fn decoded(segment: &str) -> Result<String, NoRoute> {
    let whole = |escape: &str| escape.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !segment.split('%').skip(1).all(whole) {
        return Err(NoRoute::BrokenEscape);
    }
    let text = percent_decode_str(segment).decode_utf8();
    text.map(std::borrow::Cow::into_owned).map_err(|_| NoRoute::BrokenEscape)
}
