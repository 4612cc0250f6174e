//! Captures new tokens from responses, and removes injected secrets from them.
//!
//! All other responses pass unread. Cal.com repeats a whole access token in the message of a 403 (FACTS §1).

use std::io::Read as _;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::credential::capture::Capture;
use crate::credential::received_tokens::ReceivedAt;
use crate::credential::{AuthHeaders, Credentials};
use crate::forward::{Download, DownloadFault};
use crate::headers::is_gzip;
use crate::headers::media::media_type;
use crate::refusal::Refusal;
use crate::respond::BodySource;
use crate::respond::scrubbed_body::ScrubbedBody;

/// Bytes of an error that are read before the response goes out, 64 KiB. A longer one is scrubbed while it streams.
pub(super) const MAX_ERROR: usize = 64 * 1024;

/// Maximum size of a decompressed error, 1 MiB.
const MAX_INFLATED: usize = 1024 * 1024;

/// Maximum size of a response with tokens, 256 KiB.
const MAX_TOKEN_RESPONSE: usize = 256 * 1024;

/// Replacement for a secret.
const REMOVED: &[u8] = b"(removed by calgate)";

/// Removes what the client must not see, and stores new tokens as `capture` says.
///
/// # Errors
/// [`Refusal::UpstreamInvalid`] for a response without the tokens that it should have, [`Refusal::UpstreamBroken`] for one
/// that breaks off.
pub async fn scrub(
    mut answer: Response<Download>,
    auth_headers: &AuthHeaders,
    credentials: &Credentials,
    capture: Option<&Capture>,
    at: SystemTime,
) -> Result<Response<BodySource>, Refusal> {
    if let Some(secret) = auth_headers.secret() {
        scrub_headers(answer.headers_mut(), secret);
    }
    if let Some(capture) = capture.filter(|_| answer.status().is_success()) {
        return Box::pin(capture_tokens(answer, credentials, capture, at)).await;
    }
    let failed = answer.status().is_client_error() || answer.status().is_server_error();
    match auth_headers.secret().filter(|_| failed && is_text(answer.headers())) {
        Some(secret) => Box::pin(scrub_body(answer, secret)).await,
        None => match answer.body_mut().start().await {
            Ok(()) => Ok(answer.map(BodySource::from)),
            Err(fault) => Err(broken_response(answer.status(), fault)),
        },
    }
}

async fn capture_tokens(
    mut answer: Response<Download>,
    credentials: &Credentials,
    capture: &Capture,
    at: SystemTime,
) -> Result<Response<BodySource>, Refusal> {
    let here = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let receipt = ReceivedAt::of(answer.headers(), u64::try_from(here).unwrap_or(u64::MAX));
    let Some(body) = answer.body_mut().read_up_to(MAX_TOKEN_RESPONSE).await else {
        let reported = capture.report_not_stored("the response broke off, or is longer than 256 KiB");
        let fault = answer.body().fault();
        reported.map_err(|invalid| fault.map_or(invalid, |fault| broken_response(answer.status(), fault)))?;
        return Ok(answer.map(BodySource::from));
    };
    let told = credentials.store(capture, &body, receipt).await?;
    Ok(replace_body(answer, body, told))
}

async fn scrub_body(mut answer: Response<Download>, secret: &[u8]) -> Result<Response<BodySource>, Refusal> {
    let body = answer.body_mut().read_up_to(MAX_ERROR).await;
    if let Some(fault) = answer.body().fault() {
        return Err(broken_response(answer.status(), fault));
    }
    let coding = Coding::of(answer.headers());
    let clean = match (coding, &body) {
        (Coding::Identity, None) => return Ok(scrub_stream(answer, secret)),
        (Coding::Identity, Some(body)) => replace_secret(body, secret),
        (_, Some(body)) if body.is_empty() => None,
        (Coding::Gzip, Some(body)) => match inflate(body) {
            Some(text) => replace_secret(&text, secret),
            None => Some(unreadable_body(&mut answer)),
        },
        (Coding::Gzip, None) | (Coding::Other, _) => Some(unreadable_body(&mut answer)),
    };
    let body = body.unwrap_or_default();
    if clean.is_some() {
        answer.headers_mut().remove(CONTENT_ENCODING);
    }
    Ok(replace_body(answer, body, clean))
}

/// Returns the refusal in place of a response that broke off before any of it reached the client.
fn broken_response(status: StatusCode, fault: DownloadFault) -> Refusal {
    Refusal::UpstreamBroken { status, reason: fault.reason() }
}

/// Content coding of a response (RFC 9110 §8.4.1). Names are compared without regard to case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    /// A coding that calgate cannot decode, or several codings.
    Other,
}

impl Coding {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        match (codings.next().map(|value| value.to_str().unwrap_or("?").trim()), codings.next()) {
            (None, _) => Self::Identity,
            (Some(coding), None) if coding.is_empty() || coding.eq_ignore_ascii_case("identity") => Self::Identity,
            (Some(coding), None) if is_gzip(coding) => Self::Gzip,
            _ => Self::Other,
        }
    }
}

/// Returns the body in place of an error that calgate cannot search. The client needs the status, and must not get the
/// secret.
fn unreadable_body(answer: &mut Response<Download>) -> Vec<u8> {
    let status = answer.status();
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    let message = format!(
        "Cal.com answered {} with a body that calgate cannot decode. It may contain the credential, so calgate withholds it.",
        status.as_u16()
    );
    let error = serde_json::json!({ "code": "UNREADABLE_UPSTREAM_BODY", "message": message });
    serde_json::json!({ "status": "error", "error": error }).to_string().into_bytes()
}

/// Scrubs an error that is too long to read before it goes out.
fn scrub_stream(mut answer: Response<Download>, secret: &[u8]) -> Response<BodySource> {
    answer.headers_mut().remove(ETAG);
    answer.map(|body| BodySource::Scrubbed(Box::new(ScrubbedBody::new(body, secret))))
}

/// Decompresses an error. Returns `None` if it is broken, or longer than [`MAX_INFLATED`].
pub(super) fn inflate(body: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let most = MAX_INFLATED + 1;
    let read = MultiGzDecoder::new(body).take(most as u64).read_to_end(&mut text);
    (read.is_ok() && text.len() < most).then_some(text)
}

/// Returns a response with the body that was read, or with `other` in its place.
fn replace_body(answer: Response<Download>, read: Bytes, other: Option<Vec<u8>>) -> Response<BodySource> {
    let (mut head, _) = answer.into_parts();
    let Some(other) = other.map(Bytes::from) else { return Response::from_parts(head, BodySource::from(read)) };
    if head.headers.contains_key(CONTENT_LENGTH) {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(other.len()));
    }
    head.headers.remove(ETAG);
    Response::from_parts(head, BodySource::from(other))
}

fn scrub_headers(headers: &mut HeaderMap, secret: &[u8]) {
    for value in headers.values_mut() {
        if let Some(clean) = replace_secret(value.as_bytes(), secret) {
            *value = HeaderValue::from_bytes(&clean).unwrap_or_else(|_| HeaderValue::from_static(""));
        }
    }
}

/// Returns whether a response is text: JSON, XML, HTML, plain text or a form.
pub(super) fn is_text(headers: &HeaderMap) -> bool {
    let media = media_type(headers).unwrap_or("text/plain").to_ascii_lowercase();
    media.starts_with("text/") || ["json", "xml", "urlencoded"].iter().any(|kind| media.contains(kind))
}

/// Replaces every occurrence of `secret`. Returns `None` if there is none.
fn replace_secret(bytes: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
    if secret.is_empty() {
        return None;
    }
    let find = |from: &[u8]| from.windows(secret.len()).position(|window| window == secret);
    let mut at = find(bytes)?;
    let (mut clean, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    loop {
        let (before, found) = rest.split_at_checked(at)?;
        clean.extend_from_slice(before);
        clean.extend_from_slice(REMOVED);
        rest = found.get(secret.len()..)?;
        match find(rest) {
            Some(next) => at = next,
            None => break,
        }
    }
    clean.extend_from_slice(rest);
    Some(clean)
}
