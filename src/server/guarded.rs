//! Bodies that keep their connection marked as busy until they are over: a caller's own, and the answer's.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::watch::Answering;

/// The body of an answer.
pub(super) struct Outgoing<B> {
    body: B,
    answering: Answering,
}

impl<B> Outgoing<B> {
    pub(super) fn new(body: B, answering: Answering) -> Self {
        answering.note_answer();
        Self { body, answering }
    }
}

impl<B> Drop for Outgoing<B> {
    fn drop(&mut self) {
        self.answering.note_answer_over();
    }
}

impl<B: Body + Unpin> Body for Outgoing<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request. It can outlive the answer, which need not wait for its end.
pub struct CallersBody {
    body: Incoming,
    is_over: bool,
    /// `None` where there is no body.
    answering: Option<Answering>,
}

impl CallersBody {
    pub(super) fn new(body: Incoming, answering: &Answering) -> Self {
        let is_over = body.is_end_stream();
        Self { is_over, body, answering: (!is_over).then(|| answering.clone()) }
    }
}

impl Drop for CallersBody {
    fn drop(&mut self) {
        if let Some(answering) = self.answering.as_ref().filter(|_| !self.is_over) {
            answering.note_left_unread();
        }
    }
}

impl Body for CallersBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        // Nothing comes behind trailers.
        let is_last = frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers));
        this.is_over |= is_last || this.body.is_end_stream();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
