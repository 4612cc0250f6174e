//! Response body on its way to the caller: streamed and limited in time. Its end releases the connection.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::pool::{self, Lease};
use crate::forward::timeout::Deadline;

/// Fault of a response body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownloadFault {
    /// The response took longer than `[limits] upstream_total`.
    TooSlow,
    /// The connection to Cal.com broke, or the framing is invalid.
    Broken,
}

impl DownloadFault {
    /// Describes the fault for the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooSlow => "the upstream answer took too long",
            Self::Broken => "the upstream answer broke off",
        }
    }
}

impl fmt::Display for DownloadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for DownloadFault {}

/// Body of a forwarded response. Trailers are dropped, as the headers of the upstream hop are.
pub struct Download {
    /// First frame, if [`Self::start`] has read it. It is not part of `prefetched`, because most bodies have the one and few
    /// the other.
    first: Option<Bytes>,
    /// Bytes that were read before the body is passed on.
    prefetched: Option<Box<Prefetched>>,
    inner: Incoming,
    /// Time at which the head arrived.
    started_at: Instant,
    deadline: Deadline,
    /// Its part of the connection.
    connection: Option<Lease>,
}

/// Bytes that were read before the body is passed on, and the fault that ended reading.
struct Prefetched {
    read: Bytes,
    fault: Option<DownloadFault>,
}

impl Download {
    pub(super) fn new(inner: Incoming, started_at: Instant, deadline: Deadline, connection: Option<Lease>) -> Self {
        Self { first: None, prefetched: None, inner, started_at, deadline, connection }
    }

    /// Reads about `max` bytes. Returns the whole body if it is not longer. Otherwise it keeps the bytes, and any fault, for
    /// the next reader of the body.
    pub async fn read_up_to(&mut self, max: usize) -> Option<Bytes> {
        let (mut read, mut fault) = (BytesMut::new(), None);
        while read.len() <= max {
            match poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await {
                Some(Ok(frame)) => read.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                Some(Err(broken)) => {
                    fault = Some(broken);
                    break;
                }
                None => return Some(read.freeze()),
            }
        }
        self.prefetched = Some(Box::new(Prefetched { read: read.freeze(), fault }));
        None
    }

    /// Reads the bytes of the body that have already arrived, without waiting. This finds an invalid body before its head is
    /// passed on.
    ///
    /// # Errors
    /// The fault of the body.
    pub async fn start(&mut self) -> Result<(), DownloadFault> {
        if self.is_end_stream() {
            return Ok(());
        }
        match poll_fn(|cx| Poll::Ready(Pin::new(&mut *self).poll_frame(cx))).await {
            Poll::Ready(Some(Ok(frame))) => {
                self.first = frame.into_data().ok();
                Ok(())
            }
            Poll::Ready(Some(Err(fault))) => Err(fault),
            Poll::Ready(None) | Poll::Pending => Ok(()),
        }
    }

    /// Returns the fault that ended reading ahead, if there was one.
    pub fn fault(&self) -> Option<DownloadFault> {
        self.prefetched.as_ref().and_then(|prefetched| prefetched.fault)
    }

    /// Reads the body as [`Self::read_up_to`] does, and leaves it complete.
    pub async fn peek_up_to(&mut self, max: usize) -> Option<Bytes> {
        let read = self.read_up_to(max).await?;
        self.prefetched = Some(Box::new(Prefetched { read: read.clone(), fault: None }));
        Some(read)
    }

    /// Reads about `max` bytes and leaves the body complete: the next reader of the body gets them first.
    pub async fn peek(&mut self, max: usize) -> Bytes {
        if let Some(whole) = self.read_up_to(max).await {
            self.prefetched = Some(Box::new(Prefetched { read: whole, fault: None }));
        }
        self.prefetched.as_ref().map(|prefetched| prefetched.read.clone()).unwrap_or_default()
    }

    /// Returns the time at which the head of the response arrived.
    pub fn started_at(&self) -> std::time::Instant {
        self.started_at.into_std()
    }

    /// Releases the connection to the pool after the end of the body. Its idle time starts with the head of the response,
    /// because the clock was read then, and most bodies arrive together with their heads.
    fn finish(&mut self) {
        if let Some(Lease::Http1(http1)) = self.connection.take() {
            pool::release(http1, self.started_at);
        }
    }
}

/// Returns the size hint of a body of which `read` bytes were read ahead.
pub(crate) fn size_hint_plus(rest: &SizeHint, read: usize) -> SizeHint {
    let mut hint = SizeHint::new();
    if let Some(upper) = rest.upper() {
        hint.set_upper(upper + read as u64);
    }
    hint.set_lower(rest.lower() + read as u64);
    hint
}

impl Body for Download {
    type Data = Bytes;
    type Error = DownloadFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DownloadFault>>> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Some(prefetched) = &mut this.prefetched {
            if !prefetched.read.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut prefetched.read)))));
            }
            if let Some(fault) = prefetched.fault {
                return Poll::Ready(Some(Err(fault)));
            }
        }
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        if polled.is_pending() && this.deadline.poll_passed(cx).is_ready() {
            return Poll::Ready(Some(Err(DownloadFault::TooSlow)));
        }
        let frame = match ready!(polled) {
            Some(Ok(frame)) => frame.into_data().ok(),
            Some(Err(_)) => return Poll::Ready(Some(Err(DownloadFault::Broken))),
            None => None,
        };
        if frame.is_none() || this.inner.is_end_stream() {
            this.finish();
        }
        Poll::Ready(frame.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        let over = |prefetched: &Prefetched| prefetched.read.is_empty() && prefetched.fault.is_none();
        self.first.is_none() && self.prefetched.as_deref().is_none_or(over) && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (first, prefetched) =
            (self.first.as_ref().map_or(0, Bytes::len), self.prefetched.as_ref().map_or(0, |a| a.read.len()));
        size_hint_plus(&self.inner.size_hint(), first + prefetched)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // A response without a body (HEAD, 204, 304) is never polled.
        if self.inner.is_end_stream() {
            self.finish();
        }
    }
}
