//! A response body from which a secret is removed while it streams.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

use crate::forward::{Download, DownloadFault, size_hint_plus};

/// Cal.com's body without a secret.
pub struct ScrubbedBody {
    body: Download,
    secret: Box<[u8]>,
    /// What may be the beginning of the secret is held until more comes.
    held: BytesMut,
}

impl ScrubbedBody {
    pub(super) fn new(body: Download, secret: &[u8]) -> Self {
        Self { body, secret: secret.into(), held: BytesMut::new() }
    }

    /// Takes more of the body. Answers what of it can go.
    fn search(&mut self, more: &[u8]) -> Bytes {
        self.held.extend_from_slice(more);
        mask(&mut self.held, &self.secret);
        let kept = self.secret.len().saturating_sub(1).min(self.held.len());
        self.held.split_to(self.held.len() - kept).freeze()
    }
}

/// Writes over every occurrence of `secret`. The length stays, as it may have been announced already.
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
                Some(Ok(frame)) => this.search(frame.data_ref().map_or(&[], |data| data)),
                // What is held may be all of the secret but its last byte.
                Some(Err(fault)) => return Poll::Ready(Some(Err(fault))),
                None if this.held.is_empty() => return Poll::Ready(None),
                None => this.held.split().freeze(),
            };
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        size_hint_plus(&self.body.size_hint(), self.held.len())
    }
}
