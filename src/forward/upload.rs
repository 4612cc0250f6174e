//! Request body on its way to Cal.com: streamed, never inspected, limited in size and time.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body as RequestBody;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::download::size_hint_plus;
use super::http2::Stream;
use crate::config::limits::BodyLimit;
use crate::forward::timeout::Deadline;
use crate::forward::upload_state::{UploadProgress, UploadState};
use crate::refusal::Refusal;

/// Fault of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadFault {
    /// The body has more bytes than its limit allows.
    TooLarge(BodyLimit),
    /// The body took longer than `[limits] body` allows.
    TooSlow(Duration),
    /// The body ended early, or its framing is invalid.
    Broken,
}

impl fmt::Display for UploadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge(_) => "the caller's body is too large",
            Self::TooSlow(_) => "the caller's body came too slowly",
            Self::Broken => "the caller's body broke off",
        })
    }
}

impl std::error::Error for UploadFault {}

impl From<UploadFault> for Refusal {
    fn from(fault: UploadFault) -> Self {
        match fault {
            UploadFault::TooLarge(limit) => Self::BodyTooLarge { limit: limit.bytes, key: limit.key },
            UploadFault::TooSlow(limit) => Self::late_body(limit),
            UploadFault::Broken => Self::BodyBroken,
        }
    }
}

/// Body of a forwarded request. Trailers are dropped, because a removed header must not return as a trailer.
pub struct Upload {
    content: UploadSource,
    /// HTTP/2 stream that it is sent on. The stream counts as open until the body is dropped.
    stream: Option<Arc<Stream>>,
}

enum UploadSource {
    /// Whole body, which may be empty.
    Whole(Bytes),
    /// Body that is still arriving. It is boxed, because most requests have no body and each `Upload` is moved many times.
    Streaming(Box<Streaming>),
}

struct Streaming {
    /// Bytes that were read so far, before those of `rest`.
    read: Bytes,
    rest: RequestBody,
    left: u64,
    /// Limit of the body's length.
    limit: BodyLimit,
    timeout: Duration,
    /// Deadline, from the first poll on: the request may have been queued until then.
    deadline: Option<Deadline>,
    state: Arc<UploadState>,
}

impl Upload {
    /// Creates an empty body.
    pub(super) fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    /// Creates a body from bytes in memory.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::of(UploadSource::Whole(bytes))
    }

    /// Creates a body from a caller's. It may have at most `limit` bytes, and must end within `timeout` of the first poll.
    pub fn new(body: RequestBody, limit: BodyLimit, timeout: Duration) -> Self {
        if body.is_end_stream() {
            return Self::empty();
        }
        let (read, rest, state) = (Bytes::new(), body, Arc::default());
        Self::of(UploadSource::Streaming(Box::new(Streaming {
            read,
            rest,
            left: limit.bytes,
            limit,
            timeout,
            deadline: None,
            state,
        })))
    }

    fn of(content: UploadSource) -> Self {
        Self { content, stream: None }
    }

    /// Keeps the stream open until the body is dropped.
    pub(super) fn hold(&mut self, stream: Arc<Stream>) {
        self.stream = Some(stream);
    }

    /// Reads the body into memory before it is sent, so that it can be sent twice, unless it is longer than `max`.
    ///
    /// # Errors
    /// The fault of the caller's body.
    pub async fn buffer(mut self, max: usize) -> Result<Self, Refusal> {
        let mut read = BytesMut::new();
        while !self.is_end_stream() && read.len() <= max {
            match poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
                Some(frame) => read.extend_from_slice(frame?.data_ref().map_or(&[], |data| data)),
                None => return Ok(Self::whole(read.freeze())),
            }
        }
        Ok(match self.content {
            UploadSource::Streaming(mut stream) if read.len() > max => {
                stream.read = read.freeze();
                Self::of(UploadSource::Streaming(stream))
            }
            UploadSource::Whole(_) | UploadSource::Streaming(_) => Self::whole(read.freeze()),
        })
    }

    /// Returns a copy of the body, if the whole body is in memory.
    pub fn try_clone(&self) -> Option<Self> {
        match &self.content {
            UploadSource::Whole(bytes) => Some(Self::whole(bytes.clone())),
            UploadSource::Streaming(_) => None,
        }
    }

    /// Returns whether the body should be empty, but may still turn out not to be: an HTTP/2 request with
    /// `Content-Length: 0` whose stream has not ended.
    pub fn is_unproven_empty(&self) -> bool {
        !self.is_end_stream() && self.size_hint().exact() == Some(0)
    }

    /// Returns a view of the upload state.
    pub(super) fn progress(&self) -> UploadProgress {
        match &self.content {
            UploadSource::Whole(_) => UploadProgress::default(),
            UploadSource::Streaming(stream) => UploadProgress::of(&stream.state),
        }
    }

    /// Returns whether the body is empty, so that the request can be sent twice.
    pub(super) fn is_empty(&self) -> bool {
        matches!(&self.content, UploadSource::Whole(bytes) if bytes.is_empty())
    }
}

impl Streaming {
    fn mark_sent(&self) {
        self.state.mark_sent(Instant::now());
    }

    fn is_over(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let polled = self.poll_next(cx);
        if let Poll::Ready(Some(Err(fault))) = &polled {
            self.state.mark_failed(*fault);
        }
        polled
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let deadline = self.deadline.get_or_insert_with(|| {
            let deadline = Deadline::after(self.timeout);
            self.state.set_deadline(deadline.at());
            deadline
        });
        if !self.read.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.read)))));
        }
        let polled = Pin::new(&mut self.rest).poll_frame(cx);
        if polled.is_pending() && deadline.poll_passed(cx).is_ready() {
            return Poll::Ready(Some(Err(UploadFault::TooSlow(self.timeout))));
        }
        let frame = match ready!(polled) {
            None => {
                self.mark_sent();
                return Poll::Ready(None);
            }
            Some(Err(_)) => return Poll::Ready(Some(Err(UploadFault::Broken))),
            Some(Ok(frame)) => frame,
        };
        let Ok(data) = frame.into_data() else {
            self.mark_sent();
            return Poll::Ready(None);
        };
        let Some(left) = self.left.checked_sub(data.len() as u64) else {
            return Poll::Ready(Some(Err(UploadFault::TooLarge(self.limit))));
        };
        self.left = left;
        if self.is_over() {
            self.mark_sent();
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        match &mut self.get_mut().content {
            UploadSource::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            UploadSource::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            UploadSource::Streaming(stream) => stream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            UploadSource::Whole(bytes) => bytes.is_empty(),
            UploadSource::Streaming(stream) => stream.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            UploadSource::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            UploadSource::Streaming(stream) => size_hint_plus(&stream.rest.size_hint(), stream.read.len()),
        }
    }
}
