//! Header rules: which fields of a request reach Cal.com, and which fields of a response reach the client.
//!
//! An allow-list decides about requests, so that no field of a client identifies a caller or redirects the request. A
//! deny-list decides about responses, so that no field of the upstream hop reaches the client.

mod accept_encoding;
mod cors;
mod links;
pub mod media;
mod names;
mod recycle;
pub mod times;
mod via;

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

pub use accept_encoding::is_gzip;
pub use cors::Cors;
pub use links::UpstreamAddress;
pub use names::*;
pub use recycle::recycle;
pub use via::{names_this_process, via};

use accept_encoding::AcceptedCodings;

/// Maximum number of header fields, 100: the limit of hyper over HTTP/1.1. calgate applies it to HTTP/2 as well.
pub const MAX_FIELDS: usize = 100;

/// Request fields that are forwarded. All others are dropped: credentials, cookies, addresses (`Forwarded`,
/// `X-Forwarded-*`, `CF-*`, `X-Real-IP`), and overrides of the method or the URL. Names with underscores are dropped, too,
/// because some servers read them as hyphens.
pub const REQUEST_ALLOW_LIST: [&str; 19] = [
    "accept",
    "accept-language",
    "cache-control",
    "content-encoding",
    "content-language",
    "content-length",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "pragma",
    "range",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-cal-platform-embed",
];

/// Returns whether the operator may not add a field to the allow-list.
pub fn is_never_forwarded(name: &HeaderName) -> bool {
    let spelled = name.as_str().replace('_', "-");
    let exact = matches!(
        spelled.as_str(),
        "accept-encoding"
            | "authorization"
            | "cookie"
            | "expect"
            | "forwarded"
            | "host"
            | "http2-settings"
            | "via"
            | "true-client-ip"
            | "x-api-key"
            | "x-cal-client-id"
            | "x-cal-secret-key"
            | "x-client-ip"
            | "x-cluster-client-ip"
            | "x-http-method"
            | "x-http-method-override"
            | "x-method-override"
            | "x-original-url"
            | "x-real-ip"
            | "x-request-id"
            | "x-rewrite-url"
            | "cal-api-version"
    );
    let family = ["proxy-", "x-forwarded", "cf-", "x-calgate-", "x-original-", "sec-"];
    exact || is_hop_by_hop(&spelled) || family.iter().any(|start| spelled.starts_with(start))
}

/// Returns whether a field concerns one connection only (RFC 9110 §7.6.1). `Connection` can name more.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-authentication-info"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Returns the fields that `Connection` names, which is nearly always none. Its two options are no fields (RFC 9112 §9.3,
/// §9.6).
fn named_by_connection(headers: &HeaderMap) -> SmallVec<[&str; 4]> {
    let is_option = |text: &[u8]| [&b"keep-alive"[..], b"close"].iter().any(|option| option.eq_ignore_ascii_case(text));
    let mut named = SmallVec::new();
    for line in headers.get_all(header::CONNECTION) {
        if !is_option(line.as_bytes()) {
            let tokens = line.to_str().unwrap_or_default().split(',').map(str::trim);
            named.extend(tokens.filter(|token| !is_option(token.as_bytes())));
        }
    }
    named
}

fn is_among(named: &[&str], name: &HeaderName) -> bool {
    named.iter().any(|named| named.eq_ignore_ascii_case(name.as_str()))
}

/// Returns whether a request field is forwarded: as one of the allow-list, of `extra`, or as the version.
pub fn is_forwarded(name: &HeaderName, extra: &[HeaderName]) -> bool {
    REQUEST_ALLOW_LIST.contains(&name.as_str()) || extra.contains(name) || *name == API_VERSION
}

/// Returns the request fields that are forwarded. `forward` adds the credential afterwards.
pub fn request_headers(incoming: &HeaderMap, extra: &[HeaderName]) -> HeaderMap {
    let mut out = recycle::take();
    let named = named_by_connection(incoming);
    let mut codings = AcceptedCodings::default();
    let (mut has_range, mut has_if_range) = (false, false);
    for (name, value) in incoming {
        if *name == header::ACCEPT_ENCODING {
            codings.read(value);
        }
        let crosses = REQUEST_ALLOW_LIST.contains(&name.as_str()) || extra.contains(name);
        if crosses && !is_among(&named, name) {
            has_range |= *name == header::RANGE;
            has_if_range |= *name == header::IF_RANGE;
            if *name == header::CONTENT_LENGTH {
                // hyper and h2 reject lengths that differ. Of equal ones, one is enough (RFC 9110 §8.6).
                out.insert(name.clone(), value.clone());
            } else {
                out.append(name.clone(), value.clone());
            }
        }
    }
    // Without its condition, a range could be one of another representation (RFC 9110 §13.1.5).
    if has_if_range != has_range && incoming.contains_key(header::IF_RANGE) {
        out.remove(header::RANGE);
        out.remove(header::IF_RANGE);
    }
    if let Some(accepted) = codings.for_upstream().filter(|_| !is_among(&named, &header::ACCEPT_ENCODING)) {
        out.insert(header::ACCEPT_ENCODING, accepted);
    }
    out
}

/// Returns the value of `cal-api-version`, if the client sent it.
///
/// # Errors
/// The fault, if it occurs more than once: which one Cal.com reads is unknown.
pub fn api_version(incoming: &HeaderMap) -> Result<Option<&HeaderValue>, &'static str> {
    single(incoming, &API_VERSION, "cal-api-version occurs more than once")
}

/// Returns the only value of a field, if it is present. Most requests lack it and have few fields, so comparing the names
/// costs less than hashing one.
///
/// # Errors
/// `twice`, if it occurs more than once.
pub fn single<'h>(
    fields: &'h HeaderMap,
    name: &HeaderName,
    twice: &'static str,
) -> Result<Option<&'h HeaderValue>, &'static str> {
    if !fields.keys().any(|given| given == name) {
        return Ok(None);
    }
    let mut values = fields.get_all(name).iter();
    match (values.next(), values.next()) {
        (only, None) => Ok(only),
        (_, Some(_)) => Err(twice),
    }
}

/// Returns how long the client waits for its credential's budget (`x-calgate-max-wait`), in seconds or as a time such as
/// `250ms`.
///
/// # Errors
/// The fault, if the value is neither, or occurs more than once.
pub fn max_wait(incoming: &HeaderMap) -> Result<Option<Duration>, &'static str> {
    const EXPECTED: &str = "x-calgate-max-wait is one time such as 250ms or 2s";
    let Some(value) = single(incoming, &MAX_WAIT, EXPECTED)? else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let milliseconds = || text.strip_suffix("ms")?.parse().ok().map(Duration::from_millis);
    let seconds = || text.strip_suffix('s').unwrap_or(text).parse().ok().map(Duration::from_secs);
    milliseconds().or_else(seconds).map(Some).ok_or(EXPECTED)
}

/// Returns whether a response field reaches the client. Dropped are the fields of the upstream hop, cookies (a session of
/// the shared credential), limits (the client gets its own), CORS and transport policies (they are about Cal.com's origin),
/// and fields that only the gateway sets.
fn is_returned(name: &HeaderName) -> bool {
    let name = name.as_str();
    let dropped = is_hop_by_hop(name)
        || matches!(
            name,
            "alt-svc"
                | "clear-site-data"
                | "content-security-policy"
                | "nel"
                | "ratelimit"
                | "ratelimit-policy"
                | "report-to"
                | "set-cookie"
                | "set-cookie2"
                | "strict-transport-security"
        )
        || ["access-control-", "x-calgate-", "x-ratelimit-"].iter().any(|start| name.starts_with(start));
    !dropped
}

/// Removes the response fields that do not reach the client, and rewrites references to the upstream. `X-Request-Id` stays
/// until the record has read it. `respond` then replaces it.
pub fn filter_response(headers: &mut HeaderMap, upstream: UpstreamAddress<'_>) {
    let gone: SmallVec<[HeaderName; 8]> = {
        let named = named_by_connection(headers);
        headers.keys().filter(|name| !is_returned(name) || is_among(&named, name)).cloned().collect()
    };
    for name in gone {
        headers.remove(name);
    }
    links::rewrite(headers, upstream);
}

/// Returns whether a text is safe as a request id in a header and a log.
pub fn is_safe_token(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
