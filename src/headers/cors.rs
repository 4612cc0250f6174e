//! CORS policy: off unless `[listen] cors_origins` lists the origins that may call from a browser.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, AUTHORIZATION, CONTENT_DISPOSITION, ETAG, HeaderName,
    LOCATION, ORIGIN, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue};

use super::REQUEST_ALLOW_LIST;
use super::names::{
    API_KEY, API_VERSION, CLIENT_ID, CODE, HINT, MANAGED_USER, MAX_WAIT, RATE_LIMIT_FIELDS, REQUEST_ID, SECRET_KEY,
};

/// Fields that the gateway reads. A page may send them beside the forwarded ones.
static READ_BY_GATEWAY: [HeaderName; 8] =
    [AUTHORIZATION, API_KEY, API_VERSION, CLIENT_ID, SECRET_KEY, MANAGED_USER, MAX_WAIT, REQUEST_ID];

/// Fields that a page may read, beside the rate-limit fields.
static EXPOSED: [HeaderName; 9] =
    [ALLOW, CODE, CONTENT_DISPOSITION, ETAG, HINT, LOCATION, REQUEST_ID, RETRY_AFTER, WWW_AUTHENTICATE];

/// Origins that may call from a browser.
#[derive(Debug, Clone)]
pub struct Cors {
    origins: Vec<String>,
    /// Fields that a page may send.
    allow_headers: HeaderValue,
    /// Fields that a page may read.
    expose_headers: HeaderValue,
}

impl Default for Cors {
    fn default() -> Self {
        Self::new(Vec::new(), &[])
    }
}

impl Cors {
    /// Makes the policy of the configured origins, in lower case, and of the configured forwarded fields.
    pub fn new(origins: Vec<String>, extra: &[HeaderName]) -> Self {
        let sent = REQUEST_ALLOW_LIST.into_iter().chain(READ_BY_GATEWAY.iter().chain(extra).map(HeaderName::as_str));
        let exposed = RATE_LIMIT_FIELDS.iter().chain(&EXPOSED).map(HeaderName::as_str);
        Self { origins, allow_headers: list(sent), expose_headers: list(exposed) }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)))
    }

    /// Adds the CORS fields of a response to `request`.
    pub(crate) fn apply(&self, request: &HeaderMap, headers: &mut HeaderMap) {
        if self.origins.is_empty() {
            return;
        }
        headers.append(VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = request.get(ORIGIN).filter(|origin| self.allows(origin)) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, self.expose_headers.clone());
        }
    }

    /// Adds the CORS fields of the response to a preflight request.
    pub(crate) fn answer_preflight(&self, request: &HeaderMap, allow: &HeaderValue, headers: &mut HeaderMap) {
        if request.get(ORIGIN).is_some_and(|origin| self.allows(origin)) {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, allow.clone());
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.allow_headers.clone());
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> HeaderValue {
    // The names always form a valid value. The fallback covers all fields but `Authorization`.
    HeaderValue::from_str(&names.collect::<Vec<_>>().join(", ")).unwrap_or(HeaderValue::from_static("*"))
}
