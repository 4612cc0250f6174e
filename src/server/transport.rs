//! Transport that hyper reads and writes: applies `framing`, keeps half-closed connections, and replaces hyper's own
//! errors.

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
use crate::server::activity::{LAST_BYTES, Watch};
use crate::server::field_blocks::FieldBlocks;
use crate::server::framing::{Framing, Violation, max_head};
use crate::server::hangup::{Reset, Stream};
use crate::server::held_bytes::Held;

/// Bytes of an answer, head and body, that are put together before they are written: to write a list of pieces costs the
/// kernel more than that.
const ONE_PIECE: usize = 4096;

/// Maximum length of the first read of a request over HTTP/2, 2 KiB: most heads fit.
const FIRST_READ: usize = 2048;

/// The refusal of a request whose client closed its sending side within the head.
pub(super) const CUT_HEAD: Refusal = Refusal::InvalidHeader("the client closed its sending side within the head");

/// A caller's connection.
pub(super) struct Wire<T> {
    stream: T,
    /// What was read to tell HTTP/1.1 from HTTP/2.
    first: Bytes,
    watch: Arc<Watch>,
    framing: Framing,
    /// Why nothing more is passed on from the client, once that is so (HTTP/1.1).
    input_end: Option<InputEnd>,
    refusal: Option<Refusal>,
    peer_is_gone: bool,
    /// `[limits] target_bytes`.
    target_bytes: usize,
    /// `[limits] head_bytes`.
    head_bytes: usize,
    blocks: FieldBlocks,
    /// Bytes of an unfinished field block (HTTP/2), of which `released` may be passed on.
    held: Held,
    released: usize,
    max_held: usize,
    /// The end of the wait for a caller that has been told the end (HTTP/2).
    farewell: Option<Pin<Box<Sleep>>>,
}

/// The end of a client's requests. Those before it are still answered.
enum InputEnd {
    /// The client has closed its sending side. Completes if the client leaves altogether.
    HalfClosed(Option<Reset>),
    /// The next bytes break a rule.
    Refused(Refusal),
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
            framing: Framing::new(limits),
            input_end: None,
            refusal: None,
            peer_is_gone: false,
            target_bytes: limits.target_bytes,
            head_bytes: limits.head_bytes,
            blocks: FieldBlocks::new(),
            held: Held::default(),
            released: 0,
            max_held: 2 * max_head(limits),
            farewell: None,
        }
    }

    /// Takes it back from hyper.
    pub(super) fn into_ending(self) -> Ending<T> {
        let is_cut = matches!(self.input_end, Some(InputEnd::HalfClosed(_))) && self.watch.awaits_head();
        let refusal = self.refusal.or(is_cut.then_some(CUT_HEAD));
        Ending { stream: self.stream, refusal, peer_is_gone: self.peer_is_gone }
    }

    /// Reads bytes that may be passed on. Returns how many, which is 0 at the end of the client's requests.
    fn poll_requests(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<usize>> {
        let before = buf.filled().len();
        ready!(self.poll_bytes(cx, buf))?;
        let new = buf.filled().get(before..).unwrap_or_default();
        if new.is_empty() {
            let reset = if self.watch.is_answering() { self.stream.wait_for_reset().ok() } else { None };
            self.input_end = Some(InputEnd::HalfClosed(reset));
            return Poll::Ready(Ok(0));
        }
        let mut passed = new.len();
        if let Err(Violation { good, refusal }) = self.framing.follow(new) {
            buf.set_filled(before + good);
            passed = good;
            self.input_end = Some(InputEnd::Refused(refusal));
        }
        self.watch.note_read(self.framing.is_in_head());
        Poll::Ready(Ok(passed))
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if !self.first.is_empty() {
            let n = self.first.len().min(buf.remaining());
            buf.put_slice(self.first.get(..n).unwrap_or_default());
            self.first.advance(n);
            if self.first.is_empty() {
                // Empty, it would still keep its memory.
                self.first = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.peer_is_gone = read.is_err() || buf.filled().len() == before;
        Poll::Ready(read)
    }

    /// Reads frames of HTTP/2, without those of an unfinished field block.
    fn poll_frames(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        loop {
            if self.released > 0 {
                self.released -= self.held.take(buf, self.released);
                return Poll::Ready(Ok(()));
            }
            if self.blocks.is_open() {
                if ready!(self.poll_block(cx))? == 0 {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let before = buf.filled().len();
            if self.watch.is_idle() && self.blocks.is_between_frames() {
                // A block that stays unfinished costs no more of the buffer of h2 than this.
                let mut first = ReadBuf::new(buf.initialize_unfilled_to(FIRST_READ.min(buf.remaining())));
                ready!(self.poll_bytes(cx, &mut first))?;
                let read = first.filled().len();
                buf.advance(read);
            } else {
                ready!(self.poll_bytes(cx, buf))?;
            }
            let new = buf.filled().get(before..).unwrap_or_default();
            let (is_end, passed) = (new.is_empty(), self.blocks.follow(new));
            self.held.push(new.get(passed..).unwrap_or_default());
            buf.set_filled(before + passed);
            if is_end || passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Reads more of an unfinished field block, and not into the buffer of h2. Returns the number of bytes.
    fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut new = ReadBuf::uninit(&mut space);
        ready!(self.poll_bytes(cx, &mut new))?;
        let new = new.filled();
        let passed = self.blocks.follow(new);
        self.released = if passed > 0 { self.held.len() + passed } else { 0 };
        self.held.push(new);
        if self.held.len() > self.max_held {
            // h2 refuses a block of this size.
            self.released = self.held.len();
        }
        Poll::Ready(Ok(new.len()))
    }

    /// Tells hyper of the end of the client's requests: within a body at once, else when all before it are answered. To
    /// hyper, the end is a disconnect, and it would drop what it is answering.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let is_in_body = self.framing.is_in_body();
        match &mut self.input_end {
            Some(InputEnd::Refused(_)) if is_in_body => {
                Poll::Ready(Err(Error::new(ErrorKind::InvalidData, "the body's framing is malformed")))
            }
            Some(_) if is_in_body => Poll::Ready(Ok(())),
            Some(InputEnd::HalfClosed(Some(reset))) if self.watch.is_answering() => {
                if reset.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
                }
                self.watch.is_busy_or_wakes(cx.waker());
                Poll::Pending
            }
            _ if self.watch.is_busy_or_wakes(cx.waker()) => Poll::Pending,
            Some(InputEnd::Refused(refusal)) => {
                self.refusal = Some(refusal.clone());
                Poll::Ready(Err(Error::new(ErrorKind::InvalidData, "the request breaks a rule of HTTP")))
            }
            Some(InputEnd::HalfClosed(_)) | None => Poll::Ready(Ok(())),
        }
    }

    /// hyper answers what it cannot parse by itself, with an empty body. Such an answer is kept back, and the gateway's
    /// own is written when the connection ends. It is told by what only the gateway's answers have: a request id.
    fn is_foreign_answer(&mut self, data: &[u8]) -> bool {
        if self.watch.is_http2() || self.watch.is_answering() || !data.starts_with(b"HTTP/1.") {
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
        if this.watch.is_http2() {
            return this.poll_frames(cx, buf);
        }
        if this.input_end.is_none() && ready!(this.poll_requests(cx, buf))? > 0 {
            return Poll::Ready(Ok(()));
        }
        this.poll_end(cx)
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
