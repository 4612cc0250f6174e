//! `Via`: the intermediaries that a request has passed (RFC 9110 §7.6.3). A process that finds itself in it is in a loop.

use std::sync::LazyLock;

use http::header::{HeaderMap, HeaderValue, VIA};
use http::{Version, request};

use crate::random;

/// Prefix of the pseudonym of each calgate process.
const PSEUDONYM_PREFIX: &str = "calgate-";

/// Pseudonym of this process, and its `Via` member for each HTTP version. Each request carries one. The text is static, so
/// that a clone counts no references.
struct Identity {
    pseudonym: String,
    http10: HeaderValue,
    http11: HeaderValue,
    http2: HeaderValue,
}

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    // A process id is not unique, because containers share them.
    let pseudonym = format!("{PSEUDONYM_PREFIX}{:016x}", random::seed());
    let member = |version: &str| {
        let text: &'static str = Box::leak(format!("{version} {pseudonym}").into_boxed_str());
        HeaderValue::from_static(text)
    };
    let (http10, http11, http2) = (member("1.0"), member("1.1"), member("2"));
    Identity { pseudonym, http10, http11, http2 }
});

impl Identity {
    fn member(&self, version: Version) -> &HeaderValue {
        match version {
            Version::HTTP_2 => &self.http2,
            Version::HTTP_10 => &self.http10,
            _ => &self.http11,
        }
    }
}

/// Returns whether a received `Via` line names this process.
pub fn names_this_process(line: &HeaderValue) -> bool {
    members(line).any(|(_, received_by)| received_by == IDENTITY.pseudonym)
}

/// Returns the field for the request to Cal.com: the members of other calgate processes, through which a loop may lead,
/// then this one. Other members name hosts behind the gateway, which Cal.com does not need.
pub fn via(received: &request::Parts) -> HeaderValue {
    let own = IDENTITY.member(received.version);
    if !received.headers.contains_key(VIA) {
        return own.clone();
    }
    with_earlier(&received.headers, own).unwrap_or_else(|| own.clone())
}

fn with_earlier(received: &HeaderMap, own: &HeaderValue) -> Option<HeaderValue> {
    let mut text = String::new();
    for line in received.get_all(VIA) {
        for (protocol, pseudonym) in members(line).filter(|(protocol, name)| is_calgate(protocol, name)) {
            text.push_str(protocol);
            text.push(' ');
            text.push_str(pseudonym);
            text.push_str(", ");
        }
    }
    text.push_str(own.to_str().ok()?);
    HeaderValue::from_str(&text).ok()
}

/// Returns whether a calgate process wrote a member. Clients choose the text of others.
fn is_calgate(protocol: &str, name: &str) -> bool {
    let is_id = |id: &str| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    matches!(protocol, "1.0" | "1.1" | "2") && name.strip_prefix(PSEUDONYM_PREFIX).is_some_and(is_id)
}

/// Returns the received protocol and the recipient of each member of a line, without comments.
fn members(line: &HeaderValue) -> impl Iterator<Item = (&str, &str)> {
    line.to_str().unwrap_or_default().split(',').filter_map(|member| {
        let mut words = member.split_ascii_whitespace();
        Some((words.next()?, words.next()?))
    })
}
