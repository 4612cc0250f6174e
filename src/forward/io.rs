//! The byte stream under an upstream connection, with what the gateway has to know of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a stream tells of itself.
pub(super) trait IoObserver: Unpin {
    /// Bytes arrived.
    fn received(&mut self, bytes: usize);

    /// Whether a failed write is left to the next read to report.
    fn holds_failed_writes(&self) -> bool;
}

/// Observer of an HTTP/1.1 connection: counts what arrives, because a lost request may only be sent again if no byte of its
/// response came.
///
/// It keeps failed writes to itself. An upstream may answer an upload early and close (RFC 9112 §9.3): the next write fails,
/// but the response is still there to be read. Where there is none, the read says so.
pub(super) struct ByteCounter(pub(super) Arc<AtomicU64>);

impl IoObserver for ByteCounter {
    fn received(&mut self, bytes: usize) {
        // Nobody else writes it.
        self.0.store(self.0.load(Ordering::Relaxed) + bytes as u64, Ordering::Relaxed);
    }

    fn holds_failed_writes(&self) -> bool {
        true
    }
}

/// The wait for the peer's first SETTINGS frame (RFC 9113 §3.4): says how many requests a connection takes.
#[derive(Debug, Default)]
pub(super) struct SettingsWait {
    /// The task that looks whether the frame is there.
    pub(super) task: AtomicWaker,
    /// Set when it is.
    pub(super) is_over: AtomicBool,
}

/// Observer of an HTTP/2 connection: wakes the task that waits for the peer's settings.
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
        // Its connection writes before it reads: it would wait for ever.
        false
    }
}

/// A stream that tells `observer` what happens on it.
pub(super) struct ObservedIo<T, O> {
    io: T,
    observer: O,
    /// Whether a write failed and the next read is to say why.
    has_failed: bool,
}

impl<T, O: IoObserver> ObservedIo<T, O> {
    pub(super) fn new(io: T, observer: O) -> Self {
        Self { io, observer, has_failed: false }
    }

    fn written<R>(&mut self, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if matches!(polled, Poll::Ready(Err(_))) && self.observer.holds_failed_writes() {
            // Never ready again, and without a waker: only a read goes on from here.
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
