//! Cal.com's body on its way to the caller: streamed, bounded in time, its connection kept when it is over.

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

/// Why an answer broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownloadFault {
    /// Longer than `[limits] upstream_total`.
    TooSlow,
    /// Cal.com's connection broke, or its framing.
    Broken,
}

impl DownloadFault {
    /// The same in words, for the log.
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

/// The body of a forwarded answer. Trailers are dropped, as headers of the upstream hop are.
pub struct Download {
    /// The first frame, which [`Self::start`] has taken. It is not part of `prefetched`, as most bodies have one and few that.
    first: Option<Bytes>,
    /// What was read of it before it is passed on.
    prefetched: Option<Box<Prefetched>>,
    inner: Incoming,
    /// When its head came.
    started_at: Instant,
    deadline: Deadline,
    /// What it holds of the connection it comes from.
    connection: Option<Lease>,
}

/// What was read ahead, and how it broke off meanwhile.
struct Prefetched {
    read: Bytes,
    fault: Option<DownloadFault>,
}

impl Download {
    pub(super) fn new(inner: Incoming, started_at: Instant, deadline: Deadline, connection: Option<Lease>) -> Self {
        Self { first: None, prefetched: None, inner, started_at, deadline, connection }
    }

    /// Reads at most about `max` bytes. If that is all of the body, it is handed over; otherwise it comes first when
    /// the body is passed on, and so does the way it breaks off.
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

    /// Takes what is already there of the body, without waiting. A body that is broken from its start is found before its head
    /// is passed on.
    ///
    /// # Errors
    /// Why the body broke off.
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

    /// Why reading ahead stopped, if the body broke off.
    pub fn fault(&self) -> Option<DownloadFault> {
        self.prefetched.as_ref().and_then(|prefetched| prefetched.fault)
    }

    /// Reads the body as [`Self::read_up_to`] does, and keeps it: what was read is passed on as if it had not been.
    pub async fn peek_up_to(&mut self, max: usize) -> Option<Bytes> {
        let read = self.read_up_to(max).await?;
        self.prefetched = Some(Box::new(Prefetched { read: read.clone(), fault: None }));
        Some(read)
    }

    /// Reads at most about `max` bytes and leaves the body complete: what was read comes first when the body is passed on.
    pub async fn peek(&mut self, max: usize) -> Bytes {
        if let Some(whole) = self.read_up_to(max).await {
            self.prefetched = Some(Box::new(Prefetched { read: whole, fault: None }));
        }
        self.prefetched.as_ref().map(|prefetched| prefetched.read.clone()).unwrap_or_default()
    }

    /// When the head of the answer came.
    pub fn started_at(&self) -> std::time::Instant {
        self.started_at.into_std()
    }

    /// Keeps the connection, now that nothing more comes on it. That it is idle is reckoned from the head of the answer: the
    /// clock was read then, and most bodies come along with their heads.
    fn finish(&mut self) {
        if let Some(Lease::Http1(http1)) = self.connection.take() {
            pool::release(http1, self.started_at);
        }
    }
}

/// The size of a body of which so many bytes were read ahead.
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
        // An answer without a body (HEAD, 204, 304) is never polled.
        if self.inner.is_end_stream() {
            self.finish();
        }
    }
}
