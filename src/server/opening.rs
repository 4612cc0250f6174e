//! The first bytes of a connection: which protocol it speaks, and the head of its first request.
//!
//! hyper keeps at least 16 KiB of buffers for each connection. A client that never completes a head does not get that far:
//! until then, a connection costs the bytes that came.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::ready;
use std::time::Instant;

use bytes::BytesMut;
use tokio::io::ReadBuf;
use tokio::time::timeout_at;

use super::framing::Framing;
use super::hangup::Stream;
use crate::config::limits::Bounds;

/// The bytes that an HTTP/2 connection begins with (RFC 9113 §3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that are collected before a connection is handed to hyper, 2 KiB. Most heads are smaller.
const MAX_COLLECTED: usize = 2048;

/// The first bytes of a connection, and what they tell.
pub(super) struct First {
    pub(super) bytes: BytesMut,
    pub(super) is_http2: bool,
}

/// Why the first head of a connection is not complete.
pub(super) enum Incomplete {
    /// It took longer than `[limits] head`.
    Late,
    /// The client closed its sending side within it.
    Cut,
    /// The connection broke.
    Broken,
}

/// Reads as many bytes as it takes to tell the protocol, within `[limits] first_byte`. Returns `None` if they do not come.
#[expect(clippy::disallowed_methods, reason = "the time limit of the first byte starts here")]
pub(super) async fn protocol<T: Stream>(stream: &mut T, limits: &Bounds) -> Option<First> {
    let by = Instant::now() + limits.first_byte;
    let mut bytes = BytesMut::new();
    loop {
        let new = timeout_at(by.into(), read_more(stream, &mut bytes)).await.ok()?.ok()?;
        if new == 0 {
            return None;
        }
        let is_http2 = bytes.starts_with(HTTP2_PREFACE);
        if is_http2 || !HTTP2_PREFACE.starts_with(&bytes) {
            return Some(First { bytes, is_http2 });
        }
    }
}

/// Reads the rest of the first head (HTTP/1.1), unless it is large, or breaks a rule already. `began` is when it began.
///
/// # Errors
/// The head did not come.
pub(super) async fn head<T: Stream>(
    stream: &mut T,
    bytes: &mut BytesMut,
    began: Instant,
    limits: &Bounds,
) -> Result<(), Incomplete> {
    let mut framing = Framing::new(limits);
    let mut followed = 0;
    loop {
        let is_fine = framing.follow(bytes.get(followed..).unwrap_or_default()).is_ok();
        if !is_fine || framing.has_head() || !framing.is_in_head() || bytes.len() >= MAX_COLLECTED {
            return Ok(());
        }
        followed = bytes.len();
        match timeout_at((began + limits.head).into(), read_more(stream, bytes)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0)) => return Err(Incomplete::Cut),
            Ok(Err(_)) => return Err(Incomplete::Broken),
            Err(_) => return Err(Incomplete::Late),
        }
    }
}

/// Reads what is there, and allocates no more than that.
async fn read_more<T: Stream>(stream: &mut T, first: &mut BytesMut) -> std::io::Result<usize> {
    poll_fn(|cx| {
        let mut space = [MaybeUninit::uninit(); MAX_COLLECTED];
        let mut new = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut new))?;
        first.extend_from_slice(new.filled());
        Ok(new.filled().len()).into()
    })
    .await
}
