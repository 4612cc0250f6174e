//! A caller's connection as bytes, with the rules that hyper cannot be told: no bare line feeds in a head, and no
//! answers that are not the gateway's own.

use std::io::{Error, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::watch::Watch;
use crate::refusal::Refusal;

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
}

impl<T: Stream> Wire<T> {
    pub(super) fn new(stream: T, first: Bytes, watch: Arc<Watch>) -> Self {
        Self { stream, first, watch, head: HeadScan::Over, refusal: None }
    }

    /// The bare stream, and what has to be said on it before it is closed.
    pub(super) fn into_end(self) -> (T, Option<Refusal>) {
        (self.stream, self.refusal)
    }

    fn check_head(&mut self, new: &[u8]) -> std::io::Result<()> {
        if new.is_empty() {
            return Ok(());
        }
        if self.watch.bytes_came() {
            self.head = HeadScan::Line { after_return: false, empty: true };
        }
        if !self.head.goes_on_with(new) {
            self.refusal = Some(Refusal::BadHeader("a line of the head ends without a carriage return"));
            return Err(Error::new(ErrorKind::InvalidData, "bare line feed"));
        }
        Ok(())
    }

    /// hyper answers what it cannot parse by itself, with an empty body. Such an answer is kept back, and the gateway's
    /// own is written when the connection ends. It is told by what only the gateway's answers have: a request id.
    fn is_foreign_answer(&mut self, data: &[u8]) -> bool {
        if !data.starts_with(b"HTTP/1.") || !self.watch.is_in_head() {
            return false;
        }
        let refusal = match data.get(9..12) {
            Some(b"400") => Refusal::BadHeader("the request's head is malformed"),
            Some(b"414") => Refusal::TargetTooLong,
            Some(b"431") => Refusal::HeadTooLarge,
            _ => return false,
        };
        if data.windows(13).any(|w| w.eq_ignore_ascii_case(b"x-request-id:")) {
            return false;
        }
        self.refusal = Some(refusal);
        true
    }
}

/// Where in a request's head the stream is. A head that follows another request in one segment is not scanned: where it
/// begins only hyper knows, and what it means is what is forwarded.
enum HeadScan {
    /// In a line; what came last, and whether the line is empty so far.
    Line { after_return: bool, empty: bool },
    /// Past the empty line.
    Over,
}

impl HeadScan {
    /// Whether the head is well-formed so far with `new` behind what came before.
    fn goes_on_with(&mut self, new: &[u8]) -> bool {
        for &byte in new {
            let Self::Line { after_return, empty } = self else { return true };
            match (byte, *after_return) {
                (b'\n', false) => return false,
                (b'\n', true) if *empty => *self = Self::Over,
                (b'\n', true) => *self = Self::Line { after_return: false, empty: true },
                (b'\r', _) => *after_return = true,
                _ => *self = Self::Line { after_return: false, empty: false },
            }
        }
        true
    }
}

impl<T: Stream> AsyncRead for Wire<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.first.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
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
        Pin::new(&mut this.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        if data.first().is_some_and(|first| this.is_foreign_answer(first)) {
            return Poll::Ready(Ok(data.iter().map(|slice| slice.len()).sum()));
        }
        Pin::new(&mut this.stream).poll_write_vectored(cx, data)
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
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
