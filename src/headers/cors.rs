//! CORS: off unless `[listen] cors_origins` lists the pages that may call from a browser.

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

/// What a page may send beside that which is forwarded: the gateway reads it.
static READ: [HeaderName; 8] =
    [AUTHORIZATION, API_KEY, API_VERSION, CLIENT_ID, SECRET_KEY, MANAGED_USER, MAX_WAIT, REQUEST_ID];

/// What a page may read beside the usual and how its bucket stands.
static READABLE: [HeaderName; 9] =
    [ALLOW, CODE, CONTENT_DISPOSITION, ETAG, HINT, LOCATION, REQUEST_ID, RETRY_AFTER, WWW_AUTHENTICATE];

/// The origins that may call from a browser.
#[derive(Debug, Clone)]
pub struct Cors {
    origins: Vec<String>,
    /// What a page may send.
    sent: HeaderValue,
    /// What it may read.
    exposed: HeaderValue,
}

impl Default for Cors {
    fn default() -> Self {
        Self::new(Vec::new(), &[])
    }
}

impl Cors {
    /// From the configured origins, in lower case, and the headers that are forwarded beside the usual ones.
    pub fn new(origins: Vec<String>, extra: &[HeaderName]) -> Self {
        let sent = REQUEST_ALLOW_LIST.into_iter().chain(READ.iter().chain(extra).map(HeaderName::as_str));
        let exposed = RATE_LIMIT_FIELDS.iter().chain(&READABLE).map(HeaderName::as_str);
        Self { origins, sent: list(sent), exposed: list(exposed) }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)))
    }

    /// Marks an answer for the page it is for.
    pub(crate) fn mark(&self, asked: &HeaderMap, headers: &mut HeaderMap) {
        if self.origins.is_empty() {
            return;
        }
        headers.append(VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = asked.get(ORIGIN).filter(|origin| self.allows(origin)) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, self.exposed.clone());
        }
    }

    /// Answers what a browser asks before it sends the request itself.
    pub(crate) fn answer_preflight(&self, asked: &HeaderMap, allow: &HeaderValue, headers: &mut HeaderMap) {
        if asked.get(ORIGIN).is_some_and(|origin| self.allows(origin)) {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, allow.clone());
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.sent.clone());
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> HeaderValue {
    // A wildcard covers all but `Authorization`; names always make a value.
    HeaderValue::from_str(&names.collect::<Vec<_>>().join(", ")).unwrap_or(HeaderValue::from_static("*"))
}
