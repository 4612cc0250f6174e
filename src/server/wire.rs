//! A caller's connection as bytes, with the rules that hyper cannot be told: those of `head_scan`, and no answers that
//! are not the gateway's own.

use std::io::{Error, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::head_scan::HeadScan;
use super::watch::{LAST_BYTES, Watch};
use crate::config::limits::Bounds;
use crate::refusal::Refusal;

/// Bytes of an answer, head and body, that are put together before they are written: to write a list of pieces costs the
/// kernel more than that.
const ONE_PIECE: usize = 4096;

/// A byte stream from a caller.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

/// A caller's connection.
pub(super) struct Wire<T> {
    stream: T,
    /// What was read to tell HTTP/1.1 from HTTP/2.
    first: Bytes,
    watch: Arc<Watch>,
    head: HeadScan,
    refusal: Option<Refusal>,
    peer_is_gone: bool,
    /// `[limits] target_bytes`.
    target_bytes: usize,
    /// `[limits] head_bytes`.
    head_bytes: usize,
    /// The end of the wait for a caller that has been told the end (HTTP/2).
    farewell: Option<Pin<Box<Sleep>>>,
}

/// How a connection is left by hyper.
pub(super) struct Ending<T> {
    pub(super) stream: T,
    /// What has to be said before it is closed.
    pub(super) refusal: Option<Refusal>,
    /// Whether the caller has closed its side.
    pub(super) peer_is_gone: bool,
}

impl<T: Stream> Wire<T> {
    pub(super) fn new(stream: T, first: Bytes, watch: Arc<Watch>, limits: &Bounds) -> Self {
        Self {
            stream,
            first,
            watch,
            head: HeadScan::over(),
            refusal: None,
            peer_is_gone: false,
            target_bytes: limits.target_bytes,
            head_bytes: limits.head_bytes,
            farewell: None,
        }
    }

    /// Takes it back from hyper.
    pub(super) fn into_ending(self) -> Ending<T> {
        Ending { stream: self.stream, refusal: self.refusal, peer_is_gone: self.peer_is_gone }
    }

    fn check_head(&mut self, new: &[u8]) -> std::io::Result<()> {
        if new.is_empty() {
            return Ok(());
        }
        if self.watch.bytes_came() && !self.head.ran_ahead() {
            self.head = HeadScan::default();
        }
        self.head.go_on_with(new).map_err(|fault| {
            self.refusal = Some(Refusal::BadHeader(fault));
            Error::new(ErrorKind::InvalidData, fault)
        })
    }

    /// hyper answers what it cannot parse by itself, with an empty body. Such an answer is kept back, and the gateway's
    /// own is written when the connection ends. It is told by what only the gateway's answers have: a request id.
    fn is_foreign_answer(&mut self, data: &[u8]) -> bool {
        if !self.watch.awaits_head() || !data.starts_with(b"HTTP/1.") {
            return false;
        }
        let refusal = match data.get(9..12) {
            Some(b"400") => Refusal::BadHeader("the request's head is malformed"),
            Some(b"414") => Refusal::TargetTooLong { limit: self.target_bytes },
            Some(b"431") if self.head.is_in_request_line() => Refusal::TargetTooLong { limit: self.target_bytes },
            Some(b"431") => Refusal::HeadTooLarge { limit: self.head_bytes },
            _ => return false,
        };
        if data.windows(13).any(|w| w.eq_ignore_ascii_case(b"x-request-id:")) {
            return false;
        }
        self.refusal = Some(refusal);
        true
    }

    /// Notes what became of a write. hyper goes on until all is written or one has to wait, within the same poll.
    fn note_written(&self, written: Poll<std::io::Result<usize>>) -> Poll<std::io::Result<usize>> {
        self.watch.note_written(written.is_ready());
        written
    }
}

impl<T: Stream> AsyncRead for Wire<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if this.watch.has_left_unread() && this.watch.is_idle() {
            // To hyper the caller has ended here; what it still sends is read and dropped when the connection is over.
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        if this.first.is_empty() {
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
            this.peer_is_gone = read.is_err() || buf.filled().len() == before;
            read?;
        } else {
            let n = this.first.len().min(buf.remaining());
            buf.put_slice(this.first.get(..n).unwrap_or_default());
            this.first.advance(n);
        }
        Poll::Ready(this.check_head(buf.filled().get(before..).unwrap_or_default()))
    }
}

impl<T: Stream> AsyncWrite for Wire<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        if this.is_foreign_answer(data) {
            return Poll::Ready(Ok(data.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, data);
        this.note_written(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        let length = data.iter().map(|slice| slice.len()).sum();
        if data.first().is_some_and(|first| this.is_foreign_answer(first)) {
            return Poll::Ready(Ok(length));
        }
        let stream = Pin::new(&mut this.stream);
        let written = match data {
            [only] => stream.poll_write(cx, only),
            _ if length > ONE_PIECE => stream.poll_write_vectored(cx, data),
            _ => {
                let mut piece = SmallVec::<[u8; ONE_PIECE]>::new();
                for slice in data {
                    piece.extend_from_slice(slice);
                }
                stream.poll_write(cx, &piece)
            }
        };
        this.note_written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if this.refusal.is_some() {
            return Poll::Ready(Ok(()));
        }
        if !this.watch.is_http2() {
            return Pin::new(&mut this.stream).poll_shutdown(cx);
        }
        // hyper does not give such a connection back, so what the caller still sends, window updates mostly, is read here:
        // unread, it would reset the connection and take along what the kernel has yet to send.
        let farewell = match &mut this.farewell {
            Some(farewell) => farewell,
            none => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                none.insert(Box::pin(sleep(LAST_BYTES)))
            }
        };
        let mut unread = [0; 4096];
        while farewell.as_mut().poll(cx).is_pending() {
            let mut unread = ReadBuf::new(&mut unread);
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut unread));
            if read.is_err() || unread.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}
