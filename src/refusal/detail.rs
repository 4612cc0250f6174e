//! Detail of a refusal for the access log.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

use super::{AuthFailure, Leak, PathError, Rule};
use crate::ratelimit::ThrottleReason;

/// The rule or the fault behind a refusal. Of the request, it contains at most a cleaned path or host. It is formatted only
/// on display, because the status and the code are read more often than the text.
pub(super) enum Detail<'a> {
    Text(&'a str),
    Path(PathError),
    Leak(Leak),
    Host(&'a str),
    Auth(&'a AuthFailure),
    Rule(&'a Rule),
    UnknownPath(&'a str),
    Methods { path: &'a str, allow: &'a str },
    Held(ThrottleReason),
    Limit { key: &'static str, value: u64 },
    FieldCount(usize),
    Late { part: &'static str, key: &'static str, limit: Duration },
    Broken { status: StatusCode, reason: &'static str },
}

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Path(error) => error.fmt(f),
            Self::Leak(leak) => leak.fmt(f),
            Self::Host("") => f.write_str("Host cannot be read"),
            Self::Host(host) => write!(f, "\"{host}\" is not in listen.hosts"),
            Self::Auth(failure) => failure.fmt(f),
            Self::Rule(rule) => rule.fmt(f),
            Self::UnknownPath(path) => write!(f, "no path {path} in the catalog"),
            Self::Methods { path, allow } => write!(f, "{path} supports {allow}"),
            Self::Held(hold) => write!(f, "held by {}", hold.name()),
            Self::Limit { key, value } => write!(f, "{key} = {value}"),
            Self::FieldCount(limit) => write!(f, "more than {limit} header fields"),
            Self::Late { part, key, limit } => write!(f, "{part} is late: {key} = {limit:?}"),
            Self::Broken { status, reason } => write!(f, "status {}: {reason}", status.as_u16()),
        }
    }
}
