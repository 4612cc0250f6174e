//! A caller's body on its way to Cal.com: streamed, never inspected, bounded in size and time.

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

/// Why a body did not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadFault {
    /// The body has more bytes than its limit allows.
    TooLarge(BodyLimit),
    /// The body took longer than `[limits] body` allows.
    TooSlow(Duration),
    /// It ended early, or its framing is broken.
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

/// The body of a forwarded request. Trailers are dropped: a header that was kept out must not come in behind.
pub struct Upload {
    content: UploadSource,
    /// The HTTP/2 stream it is sent on, which is open until its end.
    stream: Option<Arc<Stream>>,
}

enum UploadSource {
    /// All of it, which may be nothing.
    Whole(Bytes),
    /// What still comes. Boxed, for most requests have no body, and all of them are handed on many times.
    Streaming(Box<Streaming>),
}

struct Streaming {
    /// What was read of it so far, and where the rest comes from.
    read: Bytes,
    rest: RequestBody,
    left: u64,
    /// The largest body, in bytes.
    limit: BodyLimit,
    timeout: Duration,
    /// Begins when the body is first asked for: the caller may have been kept waiting until then.
    deadline: Option<Deadline>,
    state: Arc<UploadState>,
}

impl Upload {
    /// No body.
    pub(super) fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    /// A body that is all here.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::of(UploadSource::Whole(bytes))
    }

    /// A caller's body, of at most `limit` bytes, all of which have to be there `timeout` that time from when they are asked for.
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

    /// Has the stream count as open until the body is dropped.
    pub(super) fn hold(&mut self, stream: Arc<Stream>) {
        self.stream = Some(stream);
    }

    /// Reads the body before it is sent, so that it can be sent twice, unless it is longer than `max`.
    ///
    /// # Errors
    /// What is wrong with the caller's body.
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

    /// The same body once more, if all of it is here.
    pub fn try_clone(&self) -> Option<Self> {
        match &self.content {
            UploadSource::Whole(bytes) => Some(Self::whole(bytes.clone())),
            UploadSource::Streaming(_) => None,
        }
    }

    /// Returns whether the body should be empty, but may still turn out not to be: an HTTP/2 request with
    /// `UploadSource-Length: 0` whose stream has not ended.
    pub fn is_unproven_empty(&self) -> bool {
        !self.is_end_stream() && self.size_hint().exact() == Some(0)
    }

    /// How far it is, now and later.
    pub(super) fn progress(&self) -> UploadProgress {
        match &self.content {
            UploadSource::Whole(_) => UploadProgress::default(),
            UploadSource::Streaming(stream) => UploadProgress::of(&stream.state),
        }
    }

    /// Whether there is nothing to send, so that a request can be sent twice.
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
