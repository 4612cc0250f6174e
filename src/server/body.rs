//! Request and response bodies that mark their connection as active until they end.

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

use crate::server::activity::ExchangeGuard;
use crate::server::http2::Http2Body;

/// Maximum bytes of an unread request body that are read and dropped, 256 KiB.
const MAX_DRAIN_BYTES: usize = 256 * 1024;

/// Time limit for reading and dropping the rest of a request body, 1 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The body of a response.
pub(super) struct TrackedBody<B: Body> {
    body: B,
    guard: GuardScope,
    /// The error of the body, held back until the bytes before it are written.
    fault: Option<Box<B::Error>>,
}

/// Guard that marks the end of a response when it is dropped.
struct ResponseGuard(ExchangeGuard);

/// Owner of the guard of a response.
enum GuardScope {
    /// The body (HTTP/1.1). The transport knows when all bytes are written.
    Body { _guard: ResponseGuard },
    /// The body and each of its pieces (HTTP/2). The pieces wait in h2 until the client's window has room.
    Bytes(Arc<ResponseGuard>),
}

/// Bytes of a response, which hold its guard over HTTP/2.
pub(super) struct TrackedBytes {
    bytes: Bytes,
    _guard: Option<Arc<ResponseGuard>>,
}

impl TrackedBytes {
    /// Returns a piece without bytes, which ends a response.
    pub(super) fn empty() -> Self {
        Self { bytes: Bytes::new(), _guard: None }
    }
}

impl<B: Body> TrackedBody<B> {
    pub(super) fn new(body: B, exchange: ExchangeGuard) -> Self {
        exchange.mark_response_start();
        let is_http2 = exchange.activity().is_http2();
        let guard = ResponseGuard(exchange);
        let guard = if is_http2 { GuardScope::Bytes(Arc::new(guard)) } else { GuardScope::Body { _guard: guard } };
        Self { body, guard, fault: None }
    }
}

impl Drop for ResponseGuard {
    fn drop(&mut self) {
        self.0.mark_response_end();
    }
}

impl GuardScope {
    fn track(&self, bytes: Bytes) -> TrackedBytes {
        let guard = match self {
            Self::Body { .. } => None,
            Self::Bytes(guard) => Some(guard.clone()),
        };
        TrackedBytes { bytes, _guard: guard }
    }
}

impl Buf for TrackedBytes {
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

impl<B: Body<Data = Bytes> + Unpin> Body for TrackedBody<B> {
    type Data = TrackedBytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<TrackedBytes>, B::Error>>> {
        let this = self.get_mut();
        if let Some(fault) = this.fault.take() {
            return Poll::Ready(Some(Err(*fault)));
        }
        match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame.map_data(|bytes| this.guard.track(bytes))))),
            Some(Err(fault)) => {
                // On an error, hyper and h2 drop the bytes that they have not written yet, including the head. A client
                // that sees a connection close without a byte may repeat its request (RFC 9110 §9.2.2). Reporting the error
                // in the next poll lets them write first.
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

/// A request body as hyper or h2 hands it over.
pub(super) type ReceivedBody = Either<Incoming, Http2Body>;

/// The content of a request. It can outlive the response, which does not have to wait for its end.
struct RequestContent {
    /// `None` only in `drop`.
    body: Option<ReceivedBody>,
    is_over: bool,
    exchange: ExchangeGuard,
}

/// Creates the body that the service receives. A request without content costs no allocation.
pub(super) fn request_body(body: ReceivedBody, exchange: &ExchangeGuard) -> RequestBody {
    if body.is_end_stream() {
        return RequestBody::empty();
    }
    RequestBody::new(RequestContent { body: Some(body), is_over: false, exchange: exchange.clone() })
}

impl Drop for RequestContent {
    fn drop(&mut self) {
        if self.is_over || self.exchange.has_next_request() {
            return;
        }
        let exchange = self.exchange.clone();
        match (self.body.take(), Handle::try_current()) {
            // Cal.com can respond before it has read the whole body, and stop reading.
            (Some(body), Ok(worker)) if exchange.has_answered() => drop(worker.spawn(drain_unread(body, exchange))),
            _ => exchange.mark_body_unread(),
        }
    }
}

/// Reads and drops the rest of a body. The head of the response has announced that the connection stays open, so the client
/// may send its next request behind the body. If the rest is too long or too slow, the connection ends.
async fn drain_unread(mut body: ReceivedBody, exchange: ExchangeGuard) {
    let reading = async {
        let mut left = MAX_DRAIN_BYTES;
        while let Some(frame) = body.frame().await {
            left = left.checked_sub(frame.ok()?.data_ref().map_or(0, Bytes::len))?;
        }
        Some(())
    };
    if !matches!(timeout(DRAIN_TIMEOUT, reading).await, Ok(Some(()))) {
        exchange.mark_body_unread();
    }
}

impl Body for RequestContent {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        // Trailers are the last frame.
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
