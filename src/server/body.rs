//! Bodies that keep their connection marked as busy until they are over: a caller's own, and the answer's.

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body as RequestBody;
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Either};
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::server::activity::Answering;
use crate::server::http2::Http2Body;

/// Bytes of a body that are read to nobody's use, and how long that may take.
const MOST_READ_OFF: usize = 256 * 1024;
const READ_OFF_WITHIN: Duration = Duration::from_secs(1);

/// The body of an answer.
pub(super) struct Outgoing<B: Body> {
    body: B,
    underway: Hold,
    /// Why the body broke off, until the bytes before it are written.
    fault: Option<Box<B::Error>>,
}

/// An answer that is going out, for as long as it is held.
struct Underway(Answering);

/// How long an answer is going out. Over HTTP/1.1 the transport knows when all is written, and the body need not care;
/// over HTTP/2 its pieces wait in h2 for the caller to make room, one by one with those of other answers.
enum Hold {
    Body { _underway: Underway },
    Pieces(Arc<Underway>),
}

/// A piece of an answer.
pub(super) struct Piece {
    bytes: Bytes,
    _underway: Option<Arc<Underway>>,
}

impl Piece {
    /// A piece without bytes, which ends a response.
    pub(super) fn empty() -> Self {
        Self { bytes: Bytes::new(), _underway: None }
    }
}

impl<B: Body> Outgoing<B> {
    pub(super) fn new(body: B, answering: Answering) -> Self {
        answering.note_answer();
        let by_pieces = answering.watch().is_http2();
        let underway = Underway(answering);
        let underway = if by_pieces { Hold::Pieces(Arc::new(underway)) } else { Hold::Body { _underway: underway } };
        Self { body, underway, fault: None }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.note_answer_over();
    }
}

impl Hold {
    fn piece(&self, bytes: Bytes) -> Piece {
        let underway = match self {
            Self::Body { .. } => None,
            Self::Pieces(underway) => Some(underway.clone()),
        };
        Piece { bytes, _underway: underway }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(slices)
    }

    fn advance(&mut self, n: usize) {
        self.bytes.advance(n);
    }

    fn copy_to_bytes(&mut self, n: usize) -> Bytes {
        self.bytes.copy_to_bytes(n)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Outgoing<B> {
    type Data = Piece;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, B::Error>>> {
        let this = self.get_mut();
        if let Some(fault) = this.fault.take() {
            return Poll::Ready(Some(Err(*fault)));
        }
        match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame.map_data(|bytes| this.underway.piece(bytes))))),
            Some(Err(fault)) => {
                // At an error, hyper and h2 drop what they have not written yet, the head included. A client that sees a
                // connection close without a byte sends its request again (RFC 9110 §9.2.2): they write first.
                this.fault = Some(Box::new(fault));
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body as it comes over HTTP/1.1 or HTTP/2.
pub(super) type Source = Either<Incoming, Http2Body>;

/// The content of a request. It can outlive the response, which does not have to wait for its end.
struct Content {
    /// `None` only while it is dropped.
    body: Option<Source>,
    is_over: bool,
    answering: Answering,
}

/// Makes the body that the service receives. A request without content costs no allocation.
pub(super) fn request_body(body: Source, answering: &Answering) -> RequestBody {
    if body.is_end_stream() {
        return RequestBody::empty();
    }
    RequestBody::new(Content { body: Some(body), is_over: false, answering: answering.clone() })
}

impl Drop for Content {
    fn drop(&mut self) {
        if self.is_over || self.answering.is_followed() {
            return;
        }
        let answering = self.answering.clone();
        match (self.body.take(), Handle::try_current()) {
            // Cal.com can answer before it has all of a body, and want no more of it.
            (Some(body), Ok(worker)) if answering.has_answered() => drop(worker.spawn(read_off(body, answering))),
            _ => answering.note_left_unread(),
        }
    }
}

/// Reads what is left of a body, for its caller was told that the connection goes on, and may ask the next thing there. Where
/// that takes too long, the connection ends all the same.
async fn read_off(mut body: Source, answering: Answering) {
    let reading = async {
        let mut left = MOST_READ_OFF;
        while let Some(frame) = body.frame().await {
            left = left.checked_sub(frame.ok()?.data_ref().map_or(0, Bytes::len))?;
        }
        Some(())
    };
    if !matches!(timeout(READ_OFF_WITHIN, reading).await, Ok(Some(()))) {
        answering.note_left_unread();
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        // Nothing comes behind trailers.
        let is_last = frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers));
        this.is_over |= is_last || body.is_end_stream();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}
