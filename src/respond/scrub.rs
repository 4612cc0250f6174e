//! Inspects responses: captures new tokens and removes injected secrets.
//!
//! Everything else passes unread. Cal.com has been seen to echo a whole access token in the message of a 403 (FACTS §1).

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

/// Bytes of an error's body that are read before it is passed on; a longer one is searched on its way.
pub(super) const MOST_ERROR: usize = 64 * 1024;

/// Bytes that an error may have when it is no longer compressed.
const MOST_INFLATED: usize = 1024 * 1024;

/// Bytes of an answer that holds tokens.
const MOST_TOKENS: usize = 256 * 1024;

/// What stands in the place of a secret.
const REMOVED: &[u8] = b"(removed by calgate)";

/// Takes out of an answer what its caller must not see, and puts new tokens where `capture` says.
///
/// # Errors
/// [`Refusal::UpstreamInvalid`] for an answer that should hold tokens and does not, or breaks off.
pub async fn inspect(
    mut answer: Response<Download>,
    auth_headers: &AuthHeaders,
    credentials: &Credentials,
    capture: Option<&Capture>,
    at: SystemTime,
) -> Result<Response<BodySource>, Refusal> {
    if let Some(secret) = auth_headers.secret() {
        clean_headers(answer.headers_mut(), secret);
    }
    if let Some(capture) = capture.filter(|_| answer.status().is_success()) {
        return Box::pin(keep_tokens(answer, credentials, capture, at)).await;
    }
    let failed = answer.status().is_client_error() || answer.status().is_server_error();
    match auth_headers.secret().filter(|_| failed && is_text(answer.headers())) {
        Some(secret) => Box::pin(clean_body(answer, secret)).await,
        None => match answer.body_mut().start().await {
            Ok(()) => Ok(answer.map(BodySource::from)),
            Err(fault) => Err(broken(answer.status(), fault)),
        },
    }
}

async fn keep_tokens(
    mut answer: Response<Download>,
    credentials: &Credentials,
    capture: &Capture,
    at: SystemTime,
) -> Result<Response<BodySource>, Refusal> {
    let here = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let receipt = ReceivedAt::of(answer.headers(), u64::try_from(here).unwrap_or(u64::MAX));
    let Some(body) = answer.body_mut().read_up_to(MOST_TOKENS).await else {
        let report_not_stored = capture.report_not_stored("the response broke off, or is longer than 256 KiB");
        let fault = answer.body().fault();
        report_not_stored.map_err(|invalid| fault.map_or(invalid, |fault| broken(answer.status(), fault)))?;
        return Ok(answer.map(BodySource::from));
    };
    let told = credentials.store(capture, &body, receipt).await?;
    Ok(with_body(answer, body, told))
}

async fn clean_body(mut answer: Response<Download>, secret: &[u8]) -> Result<Response<BodySource>, Refusal> {
    let body = answer.body_mut().read_up_to(MOST_ERROR).await;
    if let Some(fault) = answer.body().fault() {
        return Err(broken(answer.status(), fault));
    }
    let coding = Coding::of(answer.headers());
    let clean = match (coding, &body) {
        (Coding::Identity, None) => return Ok(searched(answer, secret)),
        (Coding::Identity, Some(body)) => without(body, secret),
        (_, Some(body)) if body.is_empty() => None,
        (Coding::Gzip, Some(body)) => match inflated(body) {
            Some(text) => without(&text, secret),
            None => Some(unreadable(&mut answer)),
        },
        (Coding::Gzip, None) | (Coding::Other, _) => Some(unreadable(&mut answer)),
    };
    let body = body.unwrap_or_default();
    if clean.is_some() {
        answer.headers_mut().remove(CONTENT_ENCODING);
    }
    Ok(with_body(answer, body, clean))
}

/// The refusal in place of a response that broke off before any of it reached the client.
fn broken(status: StatusCode, fault: DownloadFault) -> Refusal {
    Refusal::UpstreamBroken { status, reason: fault.reason() }
}

/// The content coding of a response (RFC 9110 §8.4.1): names are compared without regard to case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    /// One that calgate cannot decode, or several.
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

/// The body in place of an error that calgate cannot search: the client needs the status, and must not get the secret.
fn unreadable(answer: &mut Response<Download>) -> Vec<u8> {
    let status = answer.status();
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    let message = format!(
        "Cal.com answered {} with a body that calgate cannot decode. It may contain the credential, so calgate withholds it.",
        status.as_u16()
    );
    let error = serde_json::json!({ "code": "UNREADABLE_UPSTREAM_BODY", "message": message });
    serde_json::json!({ "status": "error", "error": error }).to_string().into_bytes()
}

/// An error that is too long to be read before it is passed on.
fn searched(mut answer: Response<Download>, secret: &[u8]) -> Response<BodySource> {
    answer.headers_mut().remove(ETAG);
    answer.map(|body| BodySource::Scrubbed(Box::new(ScrubbedBody::new(body, secret))))
}

/// The text of a compressed error; `None` if it is broken, or longer than [`MOST_INFLATED`].
pub(super) fn inflated(body: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let most = MOST_INFLATED + 1;
    let read = MultiGzDecoder::new(body).take(most as u64).read_to_end(&mut text);
    (read.is_ok() && text.len() < most).then_some(text)
}

/// An answer whose body was read, or is another one now.
fn with_body(answer: Response<Download>, read: Bytes, other: Option<Vec<u8>>) -> Response<BodySource> {
    let (mut head, _) = answer.into_parts();
    let Some(other) = other.map(Bytes::from) else { return Response::from_parts(head, BodySource::from(read)) };
    if head.headers.contains_key(CONTENT_LENGTH) {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(other.len()));
    }
    head.headers.remove(ETAG);
    Response::from_parts(head, BodySource::from(other))
}

fn clean_headers(headers: &mut HeaderMap, secret: &[u8]) {
    for value in headers.values_mut() {
        if let Some(clean) = without(value.as_bytes(), secret) {
            *value = HeaderValue::from_bytes(&clean).unwrap_or_else(|_| HeaderValue::from_static(""));
        }
    }
}

/// Text: JSON, HTML, plain text, forms.
pub(super) fn is_text(headers: &HeaderMap) -> bool {
    let media = media_type(headers).unwrap_or("text/plain").to_ascii_lowercase();
    media.starts_with("text/") || ["json", "xml", "urlencoded"].iter().any(|kind| media.contains(kind))
}

/// `bytes` without any occurrence of `secret`; `None` if there is none.
fn without(bytes: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
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
