//! Transport below hyper and h2: validates the framing, keeps half-closed connections and replaces hyper's own error
//! responses.

use std::io::{Error, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::config::limits::Bounds;
use crate::refusal::Refusal;
use crate::server::activity::{ConnectionActivity, FINAL_FLUSH_TIMEOUT};
use crate::server::field_blocks::FieldBlocks;
use crate::server::framing::{Framing, Violation, max_head};
use crate::server::hangup::{ClientIo, Reset};
use crate::server::held_bytes::HeldBytes;

/// Maximum length of a response that is copied into one buffer before it is written, 4 KiB. Copying so few bytes costs less
/// than a vectored write.
const WRITE_CHUNK: usize = 4096;

/// Maximum length of the first read of a request over HTTP/2, 2 KiB: most heads fit.
const FIRST_READ: usize = 2048;

/// The refusal of a request whose client closed its sending side within the head.
pub(super) const TRUNCATED_HEAD: Refusal = Refusal::InvalidHeader("the client closed its sending side within the head");

/// The byte stream of a client connection.
pub(super) struct Transport<T> {
    stream: T,
    /// Bytes that were read to detect the protocol.
    prefix: Bytes,
    activity: Arc<ConnectionActivity>,
    framing: Framing,
    /// Reason why no more input is passed on, if there is one (HTTP/1.1).
    input_end: Option<InputEnd>,
    refusal: Option<Refusal>,
    is_peer_gone: bool,
    /// `[limits] target_bytes`.
    target_bytes: usize,
    /// `[limits] head_bytes`.
    head_bytes: usize,
    blocks: FieldBlocks,
    /// Bytes of an unfinished field block (HTTP/2), of which `released` may be passed on.
    held: HeldBytes,
    released: usize,
    max_held: usize,
    /// Time in which the client may still read the last responses after the end of the output (HTTP/2).
    close_delay: Option<Pin<Box<Sleep>>>,
}

/// End of the input. Requests before it are still answered.
enum InputEnd {
    /// The client has closed its sending side. Completes if the client leaves altogether.
    HalfClosed(Option<Reset>),
    /// The next bytes break a rule.
    Refused(Refusal),
}

/// What remains of a transport after hyper is done.
pub(super) struct TransportParts<T> {
    pub(super) stream: T,
    /// The response to write before the connection closes.
    pub(super) refusal: Option<Refusal>,
    /// Whether the client has closed its side or the connection is broken.
    pub(super) is_peer_gone: bool,
}

impl<T: ClientIo> Transport<T> {
    pub(super) fn new(stream: T, prefix: Bytes, activity: Arc<ConnectionActivity>, limits: &Bounds) -> Self {
        Self {
            stream,
            prefix,
            activity,
            framing: Framing::new(limits),
            input_end: None,
            refusal: None,
            is_peer_gone: false,
            target_bytes: limits.target_bytes,
            head_bytes: limits.head_bytes,
            blocks: FieldBlocks::new(),
            held: HeldBytes::default(),
            released: 0,
            max_held: 2 * max_head(limits),
            close_delay: None,
        }
    }

    /// Returns the socket and the response that is still to be written.
    pub(super) fn into_parts(self) -> TransportParts<T> {
        let is_truncated = matches!(self.input_end, Some(InputEnd::HalfClosed(_))) && self.activity.is_awaiting_head();
        let refusal = self.refusal.or(is_truncated.then_some(TRUNCATED_HEAD));
        TransportParts { stream: self.stream, refusal, is_peer_gone: self.is_peer_gone }
    }

    /// Reads bytes of HTTP/1.1 and validates them. Returns the number of valid bytes, 0 at the end of the input.
    fn poll_requests(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<usize>> {
        let before = buf.filled().len();
        ready!(self.poll_bytes(cx, buf))?;
        let new = buf.filled().get(before..).unwrap_or_default();
        if new.is_empty() {
            let reset = if self.activity.has_exchange() { self.stream.wait_for_reset().ok() } else { None };
            self.input_end = Some(InputEnd::HalfClosed(reset));
            return Poll::Ready(Ok(0));
        }
        let mut passed = new.len();
        if let Err(Violation { valid, refusal }) = self.framing.feed(new) {
            buf.set_filled(before + valid);
            passed = valid;
            self.input_end = Some(InputEnd::Refused(refusal));
        }
        self.activity.mark_read(self.framing.is_in_head());
        Poll::Ready(Ok(passed))
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if !self.prefix.is_empty() {
            let n = self.prefix.len().min(buf.remaining());
            buf.put_slice(self.prefix.get(..n).unwrap_or_default());
            self.prefix.advance(n);
            if self.prefix.is_empty() {
                // An empty slice would keep the memory.
                self.prefix = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.is_peer_gone = read.is_err() || buf.filled().len() == before;
        Poll::Ready(read)
    }

    /// Reads frames of HTTP/2, except those of an unfinished field block.
    fn poll_frames(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        loop {
            if self.released > 0 {
                self.released -= self.held.take(buf, self.released);
                return Poll::Ready(Ok(()));
            }
            if self.blocks.is_open() {
                if ready!(self.poll_field_block(cx))? == 0 {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let before = buf.filled().len();
            if self.activity.is_idle() && self.blocks.is_between_frames() {
                // An unfinished block then takes at most this much of h2's buffer.
                let mut first = ReadBuf::new(buf.initialize_unfilled_to(FIRST_READ.min(buf.remaining())));
                ready!(self.poll_bytes(cx, &mut first))?;
                let read = first.filled().len();
                buf.advance(read);
            } else {
                ready!(self.poll_bytes(cx, buf))?;
            }
            let new = buf.filled().get(before..).unwrap_or_default();
            let (is_end, passed) = (new.is_empty(), self.blocks.feed(new));
            self.held.push(new.get(passed..).unwrap_or_default());
            buf.set_filled(before + passed);
            if is_end || passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Reads more of an unfinished field block, outside of h2's buffer. Returns the number of bytes.
    fn poll_field_block(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut new = ReadBuf::uninit(&mut space);
        ready!(self.poll_bytes(cx, &mut new))?;
        let new = new.filled();
        let passed = self.blocks.feed(new);
        self.released = if passed > 0 { self.held.len() + passed } else { 0 };
        self.held.push(new);
        if self.held.len() > self.max_held {
            // h2 rejects a block of this size.
            self.released = self.held.len();
        }
        Poll::Ready(Ok(new.len()))
    }

    /// Reports the end of the input to hyper: within a body at once, otherwise after all earlier requests were answered. hyper
    /// treats the end as a disconnect and would drop those requests.
    fn poll_input_end(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let is_in_body = self.framing.is_in_body();
        match &mut self.input_end {
            Some(InputEnd::Refused(_)) if is_in_body => {
                Poll::Ready(Err(Error::new(ErrorKind::InvalidData, "the body's framing is malformed")))
            }
            Some(_) if is_in_body => Poll::Ready(Ok(())),
            Some(InputEnd::HalfClosed(Some(reset))) if self.activity.has_exchange() => {
                if reset.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
                }
                self.activity.poll_responses_written(cx).map(Ok)
            }
            _ if self.activity.poll_responses_written(cx).is_pending() => Poll::Pending,
            Some(InputEnd::Refused(refusal)) => {
                self.refusal = Some(refusal.clone());
                Poll::Ready(Err(Error::new(ErrorKind::InvalidData, "the request breaks a rule of HTTP")))
            }
            Some(InputEnd::HalfClosed(_)) | None => Poll::Ready(Ok(())),
        }
    }

    /// Returns whether `data` is hyper's own response to a request that it cannot parse. Such a response has no body. The
    /// connection writes a refusal instead when it ends. Only the gateway's responses have a request id.
    fn is_hyper_error_response(&mut self, data: &[u8]) -> bool {
        if self.activity.is_http2() || self.activity.has_exchange() || !data.starts_with(b"HTTP/1.") {
            return false;
        }
        let refusal = match data.get(9..12) {
            Some(b"400") => Refusal::InvalidHeader("the request's head is malformed"),
            Some(b"414") => Refusal::TargetTooLong { limit: self.target_bytes },
            Some(b"431") => Refusal::HeadTooLarge { limit: self.head_bytes },
            _ => return false,
        };
        if data.windows(13).any(|w| w.eq_ignore_ascii_case(b"x-request-id:")) {
            return false;
        }
        self.refusal = Some(refusal);
        true
    }

    /// Records whether a write has to wait. Within one poll, hyper writes until it has written everything or has to wait.
    fn record_write(&self, written: Poll<std::io::Result<usize>>) -> Poll<std::io::Result<usize>> {
        self.activity.mark_written(written.is_ready());
        written
    }
}

impl<T: ClientIo> AsyncRead for Transport<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if this.activity.has_unread_body() && this.activity.is_idle() {
            // hyper sees the end of the input. The lingering close reads the rest.
            return Poll::Ready(Ok(()));
        }
        if this.activity.is_http2() {
            return this.poll_frames(cx, buf);
        }
        if this.input_end.is_none() && ready!(this.poll_requests(cx, buf))? > 0 {
            return Poll::Ready(Ok(()));
        }
        this.poll_input_end(cx)
    }
}

impl<T: ClientIo> AsyncWrite for Transport<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        if this.is_hyper_error_response(data) {
            return Poll::Ready(Ok(data.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, data);
        this.record_write(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        let length = data.iter().map(|slice| slice.len()).sum();
        if data.first().is_some_and(|first| this.is_hyper_error_response(first)) {
            return Poll::Ready(Ok(length));
        }
        let stream = Pin::new(&mut this.stream);
        let written = match data {
            [only] => stream.poll_write(cx, only),
            _ if length > WRITE_CHUNK => stream.poll_write_vectored(cx, data),
            _ => {
                let mut piece = SmallVec::<[u8; WRITE_CHUNK]>::new();
                for slice in data {
                    piece.extend_from_slice(slice);
                }
                stream.poll_write(cx, &piece)
            }
        };
        this.record_write(written)
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
        if !this.activity.is_http2() {
            return Pin::new(&mut this.stream).poll_shutdown(cx);
        }
        // h2 does not return the socket, so the lingering close happens here. Unread input, such as a window update, would reset
        // the connection and discard response bytes that the kernel has not sent yet.
        let close_delay = match &mut this.close_delay {
            Some(close_delay) => close_delay,
            none => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                none.insert(Box::pin(sleep(FINAL_FLUSH_TIMEOUT)))
            }
        };
        let mut unread = [0; 4096];
        while close_delay.as_mut().poll(cx).is_pending() {
            let mut unread = ReadBuf::new(&mut unread);
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut unread));
            if read.is_err() || unread.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}
