//! Checks of the head of every request, whoever sends it. They come first on the path, before the caller is identified.

use http::header::{self, HeaderValue};
use http::{Method, Version, request};

use crate::catalog::ALL_METHODS;
use crate::config::limits::{BodyLimit, Bounds};
use crate::headers::{self, media};
use crate::refusal::{PathError, Refusal};

/// Limits on the body of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyRule {
    /// Maximum size.
    pub(super) limit: BodyLimit,
    /// Whether calgate reads the body up to the limit before it sends the request. Cal.com would reject a longer one, and
    /// no field states the length.
    pub(super) is_read_first: bool,
}

/// Checks the rules of HTTP that hyper leaves to its user, and the configured limits.
pub(super) fn check(head: &request::Parts, limits: &Bounds) -> Result<BodyRule, Refusal> {
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::unsupported_method(ALL_METHODS));
    }
    let fields = Fields::of(head);
    if head.version < Version::HTTP_2 {
        check_http1(head, &fields)?;
    }
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > limits.target_bytes {
        return Err(Refusal::TargetTooLong { limit: limits.target_bytes });
    }
    if fields.bytes > limits.head_bytes {
        return Err(Refusal::HeadTooLarge { limit: limits.head_bytes });
    }
    if head.headers.len() > headers::MAX_FIELDS {
        return Err(Refusal::TooManyFields { limit: headers::MAX_FIELDS });
    }
    if fields.is_loop {
        return Err(Refusal::Loop);
    }
    let length = fields.length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let is_json = fields.has_content_type && media::is_json(&head.headers);
    let body = limits.body_limit(is_json);
    if length.is_some_and(|length| length > body.bytes) {
        return Err(Refusal::BodyTooLarge { limit: body.bytes, key: body.key });
    }
    Ok(BodyRule { limit: body, is_read_first: is_json && length.is_none() })
}

/// The fields that `check` needs, found in one pass over all fields.
#[derive(Default)]
struct Fields<'a> {
    bytes: usize,
    hosts: usize,
    host: Option<&'a HeaderValue>,
    codings: usize,
    coding: Option<&'a HeaderValue>,
    length: Option<&'a HeaderValue>,
    has_content_type: bool,
    /// Whether the request passed this process before.
    is_loop: bool,
}

impl<'a> Fields<'a> {
    fn of(head: &'a request::Parts) -> Self {
        let mut fields = Self::default();
        for (name, value) in &head.headers {
            fields.bytes += name.as_str().len() + value.len();
            match *name {
                header::HOST => {
                    fields.hosts += 1;
                    fields.host = Some(value);
                }
                header::TRANSFER_ENCODING => {
                    fields.codings += 1;
                    fields.coding = Some(value);
                }
                header::CONTENT_LENGTH => fields.length = fields.length.or(Some(value)),
                header::CONTENT_TYPE => fields.has_content_type = true,
                header::VIA => fields.is_loop |= headers::names_this_process(value),
                _ => {}
            }
        }
        fields
    }
}

/// Checks RFC 9112 §3.2 and §6: the target has origin-form, the body has one framing, and there is exactly one `Host`.
fn check_http1(head: &request::Parts, fields: &Fields<'_>) -> Result<(), Refusal> {
    if head.uri.authority().is_some() || head.uri.scheme().is_some() {
        return Err(Refusal::InvalidPath(PathError::NotOriginForm));
    }
    // hyper accepts further codings before `chunked` and does not decode them. Without their name, Cal.com would read
    // another body.
    let is_chunked = fields.coding.is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !is_chunked || fields.codings > 1 {
        return Err(Refusal::InvalidHeader("Transfer-Encoding can only be chunked"));
    }
    match (fields.hosts, fields.host) {
        (1, Some(host)) if !host.is_empty() => Ok(()),
        (0, _) if head.version == Version::HTTP_10 => Ok(()),
        (0 | 1, _) => Err(Refusal::InvalidHeader("Host is missing")),
        _ => Err(Refusal::InvalidHeader("Host occurs more than once")),
    }
}
