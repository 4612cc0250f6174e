//! Responses in the form of Cal.com: the envelope, the headers of limits, and bodies of any length (FACTS §6).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, SizeHint};
use serde_json::{Value, json};
use tokio::time::Sleep;

use super::limiter::Verdict;

/// Body of a response: a single piece, or generated while it is sent.
pub(super) type Content = Either<Full<Bytes>, Filler>;

/// Response without limit headers.
pub(super) type Answer = Response<Content>;

/// Reason why a request is refused.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn unauthorized(message: &str) -> Self {
        Self::new(401, "UnauthorizedException", message)
    }

    pub(super) fn token_expired() -> Self {
        Self::new(498, "ACCESS_TOKEN_IS_EXPIRED", "ACCESS_TOKEN_IS_EXPIRED")
    }

    /// Refusal in Cal.com's envelope.
    pub(super) fn answer(self, path_and_query: &str, now: Duration) -> Answer {
        let millis = i64::try_from(now.as_millis()).unwrap_or_default();
        let timestamp = jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
        let error = json!({ "code": self.code, "message": self.message, "details": null });
        let envelope = json!({
            "status": "error", "timestamp": timestamp.to_string(), "path": path_and_query, "error": error
        });
        json_answer(self.status, &envelope)
    }
}

/// Returns `{"status":"success","data":…}`.
pub(super) fn success(data: &Value) -> Answer {
    json_answer(200, &json!({ "status": "success", "data": data }))
}

pub(super) fn json_answer(status: u16, body: &Value) -> Answer {
    whole(status, "application/json; charset=utf-8", body.to_string())
}

/// Returns a body of a single piece.
pub(super) fn whole(status: u16, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Either::Left(Full::from(body)));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    answer
}

/// Returns a body of `length` bytes in pieces of 16 KiB, with a pause before each.
pub(super) fn filler(length: u64, pause: Duration) -> Answer {
    let mut answer = Response::new(Either::Right(Filler { left: length, pause, sleeping: None }));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    answer
}

/// Removes the content of a response to `HEAD`, and keeps its length. hyper does not do so for HTTP/2.
pub(super) fn drop_content(answer: &mut Answer) {
    if let Some(length) = answer.body().size_hint().exact() {
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    *answer.body_mut() = Either::Left(Full::default());
}

/// Adds the headers of each limit. Cal.com sends no `Retry-After`.
pub(super) fn add_limits(answer: &mut Answer, verdict: &Verdict) {
    for standing in &verdict.standings {
        let fields = [
            ("limit", u64::from(standing.limit)),
            ("remaining", u64::from(standing.remaining)),
            ("reset", standing.reset_seconds),
        ];
        for (field, value) in fields {
            let name = format!("x-ratelimit-{field}-{}", standing.name);
            if let Ok(name) = HeaderName::try_from(name) {
                answer.headers_mut().insert(name, HeaderValue::from(value));
            }
        }
    }
}

const PIECE: &[u8] = &[b'x'; 16 * 1024];

/// Body that is generated while it is sent.
pub(super) struct Filler {
    left: u64,
    pause: Duration,
    sleeping: Option<Pin<Box<Sleep>>>,
}

impl Body for Filler {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if !self.pause.is_zero() {
            let pause = self.pause;
            let sleeping = self.sleeping.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            ready!(sleeping.as_mut().poll(context));
            self.sleeping = None;
        }
        let length = PIECE.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= length as u64;
        let piece = Bytes::from_static(PIECE).slice(..length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
