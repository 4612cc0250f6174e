//! Eighth stage: the response to the client, from Cal.com or a refusal of the gateway.
//!
//! Both carry the limits of the consumer and the id of the request. Refusals have the shape of Cal.com's errors (FACTS §6).

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
pub use scrub::inspect;

use crate::catalog::{Catalog, UnknownEndpoints};
use crate::headers::{self, CODE, Cors, REQUEST_ID};
use crate::record::Record;
use crate::refusal::Refusal;
use crate::time::iso8601;

/// Cal.com's error envelope.
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

/// A refusal as an answer. `template` stands where Cal.com echoes the path: what callers send is never repeated.
pub fn refusal(refusal: &Refusal, template: &str, at: SystemTime) -> Response<Bytes> {
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

/// Makes an answer one to `HEAD`: the same fields, no content (RFC 9110 §9.3.2). For HTTP/2, hyper leaves that to us, and
/// content breaks the stream.
pub fn strip_body(answer: &mut Response<Bytes>) {
    let length = HeaderValue::from(answer.body().len());
    answer.headers_mut().insert(CONTENT_LENGTH, length);
    *answer.body_mut() = Bytes::new();
}

/// The answer to `OPTIONS`: which methods the path takes. It needs no key, as the API's document is public, and is never
/// forwarded.
///
/// # Errors
/// [`Refusal::InvalidPath`] and [`Refusal::UnknownEndpoint`].
pub fn options(
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

/// Puts on an answer what every answer to a request with the headers `asked` has, and ties the request's record to its body.
pub fn finish<B: Into<BodySource>>(
    response: Response<B>,
    record: Box<Record>,
    asked: HeaderMap,
) -> Response<ResponseBody> {
    let (mut head, body) = response.into_parts();
    if let Some(standing) = record.standing() {
        rate_limit_headers::put(&mut head.headers, standing);
    }
    head.headers.insert(REQUEST_ID, record.request_id().clone());
    record.snapshot().cors.mark(&asked, &mut head.headers);
    headers::recycle(asked);
    Response::from_parts(head, ResponseBody::new(body.into(), record))
}

/// A refusal as it is written where hyper has no request to answer: with its framing, and the end of the connection.
pub fn raw(refused: &Refusal, record: &Record) -> Vec<u8> {
    let (mut head, body) = refusal(refused, "", record.arrival().1).into_parts();
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
