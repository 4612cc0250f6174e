//! A caller's body on its way to Cal.com: streamed, never inspected, bounded in size and time.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::deadline::Deadline;

/// Why a body did not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadFault {
    /// More than `[limits] body_bytes`.
    TooLarge,
    /// Longer than `[limits] body`.
    TooSlow,
    /// It ended early, or its framing is broken.
    Broken,
}

impl fmt::Display for UploadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the caller's body is too large",
            Self::TooSlow => "the caller's body came too slowly",
            Self::Broken => "the caller's body broke off",
        })
    }
}

impl std::error::Error for UploadFault {}

/// How far a body is, for who waits for the answer to it.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    deadline: Option<Instant>,
    sent: Option<Arc<OnceLock<Instant>>>,
}

impl Progress {
    /// Whether there is nothing left to send.
    pub(super) fn is_over(&self) -> bool {
        self.sent.as_ref().is_none_or(|sent| sent.get().is_some())
    }

    /// When the body ended, or has to end at the latest; `None` where there is none.
    pub(super) fn ends_by(&self) -> Option<Instant> {
        self.sent.as_ref().and_then(|sent| sent.get().copied()).or(self.deadline)
    }
}

/// A body as the server hands it on.
type CallersBody = dyn Body<Data = Bytes, Error = hyper::Error> + Send;

/// The body of a forwarded request. Trailers are dropped: a header that was kept out must not come in behind.
pub struct Upload {
    inner: Option<Pin<Box<CallersBody>>>,
    left: u64,
    deadline: Deadline,
    progress: Progress,
}

impl Upload {
    /// No body.
    pub(super) fn empty() -> Self {
        Self { inner: None, left: 0, deadline: Deadline::never(), progress: Progress::default() }
    }

    /// A caller's body, of at most `most` bytes, all of which have to be there by `deadline`.
    pub fn new(
        body: impl Body<Data = Bytes, Error = hyper::Error> + Send + 'static,
        most: u64,
        deadline: Deadline,
    ) -> Self {
        if body.is_end_stream() {
            return Self::empty();
        }
        let progress = Progress { deadline: deadline.at(), sent: Some(Arc::default()) };
        Self { inner: Some(Box::pin(body)), left: most, deadline, progress }
    }

    /// How far it is, now and later.
    pub(super) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    fn note_sent(&self) {
        if let Some(sent) = &self.progress.sent {
            let _ = sent.set(Instant::now());
        }
    }

    /// Whether there is nothing to send, so that a request can be sent twice.
    pub(super) fn is_empty(&self) -> bool {
        self.inner.is_none()
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        let polled = inner.as_mut().poll_frame(cx);
        if polled.is_pending() && this.deadline.poll_passed(cx).is_ready() {
            return Poll::Ready(Some(Err(UploadFault::TooSlow)));
        }
        let frame = match ready!(polled) {
            None => {
                this.note_sent();
                return Poll::Ready(None);
            }
            Some(Err(_)) => return Poll::Ready(Some(Err(UploadFault::Broken))),
            Some(Ok(frame)) => frame,
        };
        let Ok(data) = frame.into_data() else {
            this.note_sent();
            return Poll::Ready(None);
        };
        let Some(left) = this.left.checked_sub(data.len() as u64) else {
            return Poll::Ready(Some(Err(UploadFault::TooLarge)));
        };
        this.left = left;
        if this.is_end_stream() {
            this.note_sent();
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
