//! Start of a connection: detects the protocol and reads the first head.
//!
//! hyper allocates at least 16 KiB of buffers for each connection. Before a connection is handed to hyper, it needs only the
//! memory of the bytes that have arrived.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::ready;
use std::time::Instant;

use bytes::BytesMut;
use tokio::io::ReadBuf;
use tokio::time::timeout_at;

use super::framing::Framing;
use super::hangup::ClientIo;
use crate::config::limits::Bounds;

/// The connection preface of HTTP/2 (RFC 9113 §3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Maximum bytes that are collected before a connection is handed to hyper, 2 KiB. Most heads are smaller.
const MAX_COLLECTED: usize = 2048;

/// The first bytes of a connection and their protocol.
pub(super) struct Opening {
    pub(super) bytes: BytesMut,
    pub(super) is_http2: bool,
}

/// Reason why the first head of a connection is incomplete.
pub(super) enum Incomplete {
    /// The head took longer than `[limits] head`.
    Late,
    /// The client closed its sending side within the head.
    Truncated,
    /// The connection broke.
    Broken,
}

/// Reads bytes until the protocol is clear, for up to `[limits] first_byte`. Returns `None` if they do not arrive.
#[expect(clippy::disallowed_methods, reason = "the time limit of the first byte starts here")]
pub(super) async fn detect_protocol<T: ClientIo>(stream: &mut T, limits: &Bounds) -> Option<Opening> {
    let by = Instant::now() + limits.first_byte;
    let mut bytes = BytesMut::new();
    loop {
        let new = timeout_at(by.into(), read_more(stream, &mut bytes)).await.ok()?.ok()?;
        if new == 0 {
            return None;
        }
        let is_http2 = bytes.starts_with(HTTP2_PREFACE);
        if is_http2 || !HTTP2_PREFACE.starts_with(&bytes) {
            return Some(Opening { bytes, is_http2 });
        }
    }
}

/// Reads the rest of the first head (HTTP/1.1), which started at `began`. Stops early at a large head and at a violated rule.
///
/// # Errors
/// The head is incomplete.
pub(super) async fn read_head<T: ClientIo>(
    stream: &mut T,
    bytes: &mut BytesMut,
    began: Instant,
    limits: &Bounds,
) -> Result<(), Incomplete> {
    let mut framing = Framing::new(limits);
    let mut followed = 0;
    loop {
        let is_valid = framing.feed(bytes.get(followed..).unwrap_or_default()).is_ok();
        if !is_valid || framing.has_read_head() || !framing.is_in_head() || bytes.len() >= MAX_COLLECTED {
            return Ok(());
        }
        followed = bytes.len();
        match timeout_at((began + limits.head).into(), read_more(stream, bytes)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0)) => return Err(Incomplete::Truncated),
            Ok(Err(_)) => return Err(Incomplete::Broken),
            Err(_) => return Err(Incomplete::Late),
        }
    }
}

/// Reads the available bytes and allocates no more memory than they need.
async fn read_more<T: ClientIo>(stream: &mut T, first: &mut BytesMut) -> std::io::Result<usize> {
    poll_fn(|cx| {
        let mut space = [MaybeUninit::uninit(); MAX_COLLECTED];
        let mut new = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut new))?;
        first.extend_from_slice(new.filled());
        Ok(new.filled().len()).into()
    })
    .await
}
