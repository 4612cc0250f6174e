//! What crosses the wall, each way: pure rules over header fields.
//!
//! Requests go out by an allow-rule, so that nothing a caller sends can say who it is or where the request goes; answers
//! come back by a deny-rule, so that nothing of the upstream hop reaches the caller. Used by `forward` and `respond`.

pub mod media;
mod rooms;
pub mod times;

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

pub use rooms::let_go;

use crate::refusal::Refusal;

/// Chooses the version of an operation (FACTS §4).
pub const API_VERSION: HeaderName = HeaderName::from_static("cal-api-version");

/// A platform client's id and, below, its secret (FACTS §1).
pub const CLIENT_ID: HeaderName = HeaderName::from_static("x-cal-client-id");
/// See [`CLIENT_ID`].
pub const SECRET_KEY: HeaderName = HeaderName::from_static("x-cal-secret-key");

/// A gateway key, where it does not come in `Authorization`.
pub const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// How long a caller waits for its credential's budget.
pub const MAX_WAIT: HeaderName = HeaderName::from_static("x-calgate-max-wait");

/// Names a request in every log it passes.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The request headers that are forwarded when a caller sends them. Everything else stays here: credentials, cookies,
/// addresses (`Forwarded`, `X-Forwarded-*`, `CF-*`, `X-Real-IP`), method and URL overrides, and their spellings with
/// underscores, which some servers read as the same name.
pub const FORWARDED: [&str; 18] = [
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
    "if-unmodified-since",
    "pragma",
    "range",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-cal-platform-embed",
];

/// Whether a header may not even be added to the allow-rule by an operator.
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

/// Fields that concern one connection only (RFC 9110 §7.6.1), beside those that `Connection` names.
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

/// What the `Connection` lines name, beside the two options that are no headers (RFC 9112 §9.3, §9.6): nearly always
/// nothing.
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

/// The request headers that cross, from those a caller sent. What identifies the caller to Cal.com is added afterwards.
pub fn forwarded(incoming: &HeaderMap, extra: &[HeaderName]) -> HeaderMap {
    let mut out = rooms::room();
    let named = named_by_connection(incoming);
    let mut codings = Codings::default();
    for (name, value) in incoming {
        if *name == header::ACCEPT_ENCODING {
            codings.read(value);
        }
        let crosses = FORWARDED.contains(&name.as_str()) || extra.contains(name);
        if crosses && !is_among(&named, name) {
            if *name == header::CONTENT_LENGTH {
                // hyper and h2 refuse lengths that differ; one of those that agree is enough (RFC 9110 §8.6).
                out.insert(name.clone(), value.clone());
            } else {
                out.append(name.clone(), value.clone());
            }
        }
    }
    if codings.take_gzip() && !is_among(&named, &header::ACCEPT_ENCODING) {
        out.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    }
    out
}

/// What a caller's `Accept-Encoding` says of gzip, and of codings that it does not name (RFC 9110 §12.5.3). No other coding
/// is asked for, because answers of errors are searched for secrets.
#[derive(Default)]
struct Codings {
    gzip: Option<bool>,
    others: Option<bool>,
}

impl Codings {
    fn read(&mut self, line: &HeaderValue) {
        for coding in line.to_str().unwrap_or_default().split(',') {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
            let said = match name.trim() {
                "gzip" => &mut self.gzip,
                "*" => &mut self.others,
                _ => continue,
            };
            let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok());
            *said = Some(said.unwrap_or(true) && weight.is_some_and(|weight| weight > 0.0));
        }
    }

    fn take_gzip(&self) -> bool {
        self.gzip.or(self.others).unwrap_or(false)
    }
}

/// The one value of `cal-api-version`, if the caller sent it.
///
/// # Errors
/// [`Refusal::BadHeader`] if it occurs more than once: which of them Cal.com would read is a guess.
pub fn api_version(incoming: &HeaderMap) -> Result<Option<&HeaderValue>, Refusal> {
    single(incoming, &API_VERSION, "cal-api-version occurs more than once")
}

/// The one value of a field, if it is there. Mostly it is not, and a request has few fields: to go over their names is
/// less work than to hash this one.
///
/// # Errors
/// [`Refusal::BadHeader`] with `twice` if it occurs more than once.
pub fn single<'h>(
    fields: &'h HeaderMap,
    name: &HeaderName,
    twice: &'static str,
) -> Result<Option<&'h HeaderValue>, Refusal> {
    if !fields.keys().any(|given| given == name) {
        return Ok(None);
    }
    let mut values = fields.get_all(name).iter();
    match (values.next(), values.next()) {
        (only, None) => Ok(only),
        (_, Some(_)) => Err(Refusal::BadHeader(twice)),
    }
}

/// How long the caller is willing to wait for its credential's budget, if it says (`x-calgate-max-wait`): seconds, or a
/// time such as `250ms`.
///
/// # Errors
/// [`Refusal::BadHeader`] if it is neither, or said more than once.
pub fn max_wait(incoming: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    const EXPECTED: &str = "x-calgate-max-wait is one time such as 250ms or 2s";
    let Some(value) = single(incoming, &MAX_WAIT, EXPECTED)? else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let milliseconds = || text.strip_suffix("ms")?.parse().ok().map(Duration::from_millis);
    let seconds = || text.strip_suffix('s').unwrap_or(text).parse().ok().map(Duration::from_secs);
    milliseconds().or_else(seconds).map(Some).ok_or(Refusal::BadHeader(EXPECTED))
}

/// Whether an answer's header reaches the caller as it is. Left out are the upstream hop's own fields, cookies (they
/// would be a session of the shared credential), limits (the caller sees its own), CORS and transport policies (they are
/// Cal.com's, and this is another origin) and everything that only the gateway says.
fn comes_back(name: &HeaderName) -> bool {
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
                | "x-request-id"
        )
        || ["access-control-", "x-calgate-", "x-ratelimit-"].iter().any(|start| name.starts_with(start));
    !dropped
}

/// Removes from an answer's headers what does not come back, and turns a `Location` on the upstream into one here.
/// `authority` and `base_path` are the upstream's.
pub fn clean_answer(headers: &mut HeaderMap, authority: &str, base_path: &str) {
    let gone: SmallVec<[HeaderName; 8]> = {
        let named = named_by_connection(headers);
        headers.keys().filter(|name| !comes_back(name) || is_among(&named, name)).cloned().collect()
    };
    for name in gone {
        headers.remove(name);
    }
    if let Some(location) = headers.get(header::LOCATION)
        && let Some(here) = local_location(location, authority, base_path)
    {
        headers.insert(header::LOCATION, here);
    }
}

/// A `Location` on the upstream as a path here; `None` for any other, which stays as it is.
fn local_location(location: &HeaderValue, authority: &str, base_path: &str) -> Option<HeaderValue> {
    let text = location.to_str().ok()?;
    let path = match ["https://", "http://", "//"].iter().find_map(|start| strip_start(text, start)) {
        Some(rest) => {
            let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
            let host = host.rsplit('@').next().unwrap_or_default();
            without_default_port(host).eq_ignore_ascii_case(without_default_port(authority)).then_some(path)?
        }
        None if text.starts_with('/') => text,
        None => return None,
    };
    let under_base = |rest: &&str| rest.is_empty() || rest.starts_with(['/', '?', '#']);
    let path = path.strip_prefix(base_path).filter(under_base).unwrap_or(path);
    let slash = if path.starts_with('/') { "" } else { "/" };
    HeaderValue::from_str(&format!("{slash}{path}")).ok()
}

/// What follows `start`, which is compared without case.
fn strip_start<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(start.len())?;
    head.eq_ignore_ascii_case(start).then_some(rest)
}

fn without_default_port(authority: &str) -> &str {
    [":443", ":80"].iter().find_map(|port| authority.strip_suffix(port)).unwrap_or(authority)
}

/// Whether `text` may stand in a header and a log as a request id.
pub fn is_safe_token(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
