//! CORS: off unless `[listen] cors_origins` lists the pages that may call from a browser.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue};

/// What a page may send.
const HEADERS: HeaderValue =
    HeaderValue::from_static("Accept, Authorization, Content-Type, X-Api-Key, X-Request-Id, cal-api-version");

/// What a page may read beside the usual.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Retry-After, RateLimit, RateLimit-Policy, X-RateLimit-Limit-Default, X-RateLimit-Remaining-Default, \
     X-RateLimit-Reset-Default, X-Request-Id, X-Calgate-Code",
);

/// The origins that may call from a browser.
#[derive(Debug, Default, Clone)]
pub struct Cors(Vec<String>);

impl Cors {
    /// From the configured origins, in lower case.
    pub fn new(origins: Vec<String>) -> Self {
        Self(origins)
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.0.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)))
    }

    /// Marks an answer for the page it is for.
    pub(super) fn mark(&self, asked: &HeaderMap, headers: &mut HeaderMap) {
        if self.0.is_empty() {
            return;
        }
        headers.append(VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = asked.get(ORIGIN).filter(|origin| self.allows(origin)) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }

    /// Answers what a browser asks before it sends the request itself.
    pub(super) fn answer_preflight(&self, asked: &HeaderMap, allow: &HeaderValue, headers: &mut HeaderMap) {
        if asked.get(ORIGIN).is_some_and(|origin| self.allows(origin)) {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, allow.clone());
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
    }
}
