//! Eighth stage: the response to the client, either of Cal.com or a refusal of the gateway.
//!
//! Both report the rate limit of the consumer and the request id. A refusal has the format of Cal.com's errors (FACTS §6).

mod body;
mod dead_token;
mod edge;
mod rate_limit_headers;
mod scrub;
mod scrubbed_body;

use std::time::SystemTime;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode, request};
use serde::Serialize;

pub use body::{BodySource, ResponseBody};
pub use dead_token::names_dead_token;
pub use edge::{note_edge_limit, reports_rate_limit};
pub use scrub::scrub;

use crate::catalog::{Catalog, UnknownEndpoints};
use crate::headers::{self, CODE, Cors, REQUEST_ID};
use crate::record::Record;
use crate::refusal::Refusal;
use crate::time::iso8601;

/// Error format of Cal.com (FACTS §6).
#[derive(Serialize)]
struct Envelope<'a> {
    status: &'static str,
    timestamp: String,
    path: &'a str,
    error: EnvelopeError<'a>,
}

#[derive(Serialize)]
struct EnvelopeError<'a> {
    code: &'static str,
    message: &'a str,
}

/// Formats a refusal as a response. Cal.com repeats the path of the request; calgate writes `template` there, because text
/// of the client may be a secret.
pub fn refusal_response(refusal: &Refusal, template: &str, at: SystemTime) -> Response<Bytes> {
    let error = refusal.public_error();
    let envelope = Envelope {
        status: "error",
        timestamp: iso8601(at),
        path: template,
        error: EnvelopeError { code: error.code, message: &error.message },
    };
    let body = serde_json::to_vec(&envelope).unwrap_or_default();
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = error.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(CODE, HeaderValue::from_static(error.code));
    if let Some(seconds) = error.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Refusal::MethodNotAllowed { allow, .. } = refusal
        && let Ok(allow) = HeaderValue::from_str(allow)
    {
        headers.insert(ALLOW, allow);
    }
    if matches!(refusal, Refusal::Stopping { .. }) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if error.status == StatusCode::UNAUTHORIZED {
        headers.insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"calgate\""));
    }
    response
}

/// Turns a response into one to `HEAD`: the same fields without content (RFC 9110 §9.3.2). `server::http2` does not
/// drop the content, and sending it breaks the stream.
pub fn strip_body(answer: &mut Response<Bytes>) {
    let length = HeaderValue::from(answer.body().len());
    answer.headers_mut().insert(CONTENT_LENGTH, length);
    *answer.body_mut() = Bytes::new();
}

/// Answers an `OPTIONS` request with the methods of the path. It needs no key, because the API document is public, and is
/// never forwarded.
///
/// # Errors
/// [`Refusal::InvalidPath`] and [`Refusal::UnknownEndpoint`].
pub fn options_response(
    catalog: &Catalog,
    unknown: UnknownEndpoints,
    cors: &Cors,
    head: &request::Parts,
) -> Result<Response<Bytes>, Refusal> {
    let allow = catalog.allow(head.uri.path(), unknown)?;
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Ok(allow) = HeaderValue::from_str(&allow) {
        cors.answer_preflight(&head.headers, &allow, response.headers_mut());
        response.headers_mut().insert(ALLOW, allow);
    }
    Ok(response)
}

/// Adds the fields that every response has, and attaches the record to its body.
pub fn finish<B: Into<BodySource>>(
    response: Response<B>,
    record: Box<Record>,
    request_headers: HeaderMap,
) -> Response<ResponseBody> {
    let (mut head, body) = response.into_parts();
    if let Some(standing) = record.standing() {
        rate_limit_headers::insert(&mut head.headers, standing);
    }
    head.headers.insert(REQUEST_ID, record.request_id().clone());
    record.snapshot().cors.apply(&request_headers, &mut head.headers);
    headers::recycle(request_headers);
    Response::from_parts(head, ResponseBody::new(body.into(), record))
}

/// Formats a refusal as bytes for a connection without a complete request: with framing, and the end of the connection.
pub fn to_http1_bytes(refused: &Refusal, record: &Record) -> Vec<u8> {
    let (mut head, body) = refusal_response(refused, "", record.arrival().1).into_parts();
    head.headers.insert(REQUEST_ID, record.request_id().clone());
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let mut out = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&body);
    out
}
