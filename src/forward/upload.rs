//! A caller's body on its way to Cal.com: streamed, never inspected, bounded in size and time.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::deadline::Deadline;
use super::download::plus;
use crate::refusal::Refusal;

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

impl From<UploadFault> for Refusal {
    fn from(fault: UploadFault) -> Self {
        match fault {
            UploadFault::TooLarge => Self::BodyTooLarge,
            UploadFault::TooSlow => Self::RequestTimeout,
            UploadFault::Broken => Self::BodyBroken,
        }
    }
}

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
    content: Content,
    left: u64,
    deadline: Deadline,
    progress: Progress,
}

enum Content {
    /// All of it, which may be nothing.
    Whole(Bytes),
    /// What was read of it so far, and where the rest comes from.
    Stream(Bytes, Pin<Box<CallersBody>>),
}

impl Upload {
    /// No body.
    pub(super) fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    /// A body that is all here.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { content: Content::Whole(bytes), left: 0, deadline: Deadline::never(), progress: Progress::default() }
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
        Self { content: Content::Stream(Bytes::new(), Box::pin(body)), left: most, deadline, progress }
    }

    /// Reads the body before it is sent, so that it can be sent twice, unless it is longer than `most`.
    ///
    /// # Errors
    /// What is wrong with the caller's body.
    pub async fn kept(mut self, most: usize) -> Result<Self, Refusal> {
        let mut read = BytesMut::new();
        while !self.is_end_stream() && read.len() <= most {
            match poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
                Some(frame) => read.extend_from_slice(frame?.data_ref().map_or(&[], |data| data)),
                None => return Ok(Self::whole(read.freeze())),
            }
        }
        Ok(match self.content {
            Content::Stream(_, rest) if read.len() > most => {
                Self { content: Content::Stream(read.freeze(), rest), ..self }
            }
            Content::Whole(_) | Content::Stream(..) => Self::whole(read.freeze()),
        })
    }

    /// The same body once more, if all of it is here.
    pub fn again(&self) -> Option<Self> {
        match &self.content {
            Content::Whole(bytes) => Some(Self::whole(bytes.clone())),
            Content::Stream(..) => None,
        }
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
        matches!(&self.content, Content::Whole(bytes) if bytes.is_empty())
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let this = self.get_mut();
        let (Content::Whole(read) | Content::Stream(read, _)) = &mut this.content;
        if !read.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(read)))));
        }
        let Content::Stream(_, inner) = &mut this.content else { return Poll::Ready(None) };
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
        match &self.content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Stream(read, rest) => read.is_empty() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Stream(read, rest) => plus(&rest.size_hint(), read.len()),
        }
    }
}
