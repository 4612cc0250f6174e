//! Response body from which a secret is removed while it streams.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

use crate::forward::{Download, DownloadFault, size_hint_plus};

/// Body of Cal.com, with a secret masked.
pub struct ScrubbedBody {
    body: Download,
    secret: Box<[u8]>,
    /// Last bytes, which may be the start of the secret.
    tail: BytesMut,
}

impl ScrubbedBody {
    pub(super) fn new(body: Download, secret: &[u8]) -> Self {
        Self { body, secret: secret.into(), tail: BytesMut::new() }
    }

    /// Adds a chunk, and returns the bytes that can go out.
    fn scrub_chunk(&mut self, chunk: &[u8]) -> Bytes {
        self.tail.extend_from_slice(chunk);
        mask(&mut self.tail, &self.secret);
        let kept = self.secret.len().saturating_sub(1).min(self.tail.len());
        self.tail.split_to(self.tail.len() - kept).freeze()
    }
}

/// Overwrites every occurrence of `secret`. The length stays, because the head may have stated it.
fn mask(bytes: &mut [u8], secret: &[u8]) {
    if secret.is_empty() {
        return;
    }
    let mut from = 0;
    while let Some(rest) = bytes.get_mut(from..)
        && let Some(at) = rest.windows(secret.len()).position(|window| window == secret)
    {
        rest.iter_mut().skip(at).take(secret.len()).for_each(|byte| *byte = b'*');
        from += at + secret.len();
    }
}

impl Body for ScrubbedBody {
    type Data = Bytes;
    type Error = DownloadFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DownloadFault>>> {
        let this = self.get_mut();
        loop {
            let out = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => this.scrub_chunk(frame.data_ref().map_or(&[], |data| data)),
                // The tail may be the secret without its last byte, so it is dropped.
                Some(Err(fault)) => return Poll::Ready(Some(Err(fault))),
                None if this.tail.is_empty() => return Poll::Ready(None),
                None => this.tail.split().freeze(),
            };
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.tail.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        size_hint_plus(&self.body.size_hint(), self.tail.len())
    }
}
