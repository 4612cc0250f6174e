//! Media types of messages, compared as RFC 9110 §8.3.1 requires.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// The media type in `Content-Type` without its parameters, as it was sent. Compare it without regard to case.
pub fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim())
}

/// Whether `Content-Type` is `application/json`, which every response of Cal.com's own has (FACTS §6).
pub fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|media| media.eq_ignore_ascii_case("application/json"))
}
