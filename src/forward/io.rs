//! Byte stream of an upstream connection, with an observer of its events.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Observer of a byte stream.
pub(super) trait IoObserver: Unpin {
    /// Records that bytes arrived.
    fn received(&mut self, bytes: usize);

    /// Returns whether the next read reports a failed write.
    fn holds_failed_writes(&self) -> bool;
}

/// Observer of an HTTP/1.1 connection. It counts the received bytes, because a lost request may be sent again only if no byte
/// of its response came.
///
/// It hides failed writes. An upstream may answer an upload early and close (RFC 9112 §9.3). Then the next write fails, but
/// the response can still be read. Without a response, the read fails too.
pub(super) struct ByteCounter(pub(super) Arc<AtomicU64>);

impl IoObserver for ByteCounter {
    fn received(&mut self, bytes: usize) {
        // This is the only writer.
        self.0.store(self.0.load(Ordering::Relaxed) + bytes as u64, Ordering::Relaxed);
    }

    fn holds_failed_writes(&self) -> bool {
        true
    }
}

/// Wait for the peer's first SETTINGS frame (RFC 9113 §3.4), which says how many requests a connection accepts.
#[derive(Debug, Default)]
pub(super) struct SettingsWait {
    /// Task that checks whether the frame has arrived.
    pub(super) task: AtomicWaker,
    /// Set when the frame has arrived.
    pub(super) is_over: AtomicBool,
}

/// Observer of an HTTP/2 connection. It wakes the task that waits for the peer's settings.
pub(super) struct SettingsObserver(pub(super) Option<Arc<SettingsWait>>);

impl IoObserver for SettingsObserver {
    fn received(&mut self, _bytes: usize) {
        let Some(settings) = &self.0 else { return };
        settings.task.wake();
        if settings.is_over.load(Ordering::Relaxed) {
            self.0 = None;
        }
    }

    fn holds_failed_writes(&self) -> bool {
        // hyper's HTTP/2 connection writes before it reads, so it would wait forever.
        false
    }
}

/// Byte stream that reports its events to an observer.
pub(super) struct ObservedIo<T, O> {
    io: T,
    observer: O,
    /// Whether a write failed, so that the next read reports the error.
    has_failed: bool,
}

impl<T, O: IoObserver> ObservedIo<T, O> {
    pub(super) fn new(io: T, observer: O) -> Self {
        Self { io, observer, has_failed: false }
    }

    fn written<R>(&mut self, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if matches!(polled, Poll::Ready(Err(_))) && self.observer.holds_failed_writes() {
            // Writing never becomes ready again, and needs no waker: only a read makes progress from here.
            self.has_failed = true;
            return Poll::Pending;
        }
        polled
    }
}

impl<T: AsyncRead + Unpin, O: IoObserver> AsyncRead for ObservedIo<T, O> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        if polled.is_ready() {
            this.observer.received(buf.filled().len() - before);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin, O: IoObserver> AsyncWrite for ObservedIo<T, O> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.has_failed {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut this.io).poll_write(cx, data);
        this.written(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.has_failed {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, data);
        this.written(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.has_failed {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut this.io).poll_flush(cx);
        this.written(polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
