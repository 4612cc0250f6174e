//! Body of a response to a client. It keeps the record of the request until its end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::forward::{Download, DownloadFault};
use crate::record::Record;
use crate::respond::scrubbed_body::ScrubbedBody;

/// Source of the bytes of a response.
pub enum BodySource {
    /// The gateway.
    Local(Option<Bytes>),
    /// Cal.com.
    Upstream(Download),
    /// Cal.com, with a secret removed.
    Scrubbed(Box<ScrubbedBody>),
}

impl From<Bytes> for BodySource {
    fn from(bytes: Bytes) -> Self {
        Self::Local((!bytes.is_empty()).then_some(bytes))
    }
}

impl From<Download> for BodySource {
    fn from(download: Download) -> Self {
        Self::Upstream(download)
    }
}

impl BodySource {
    fn is_at_end(&self) -> bool {
        match self {
            Self::Local(bytes) => bytes.is_none(),
            Self::Upstream(download) => download.is_end_stream(),
            Self::Scrubbed(searched) => searched.is_end_stream(),
        }
    }
}

/// Body of a response, with the record of its request.
pub struct ResponseBody {
    source: BodySource,
    record: Box<Record>,
}

impl ResponseBody {
    pub(super) fn new(source: BodySource, mut record: Box<Record>) -> Self {
        if matches!(source, BodySource::Local(_)) {
            record.release_capacity();
        }
        Self { source, record }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = DownloadFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DownloadFault>>> {
        let this = self.get_mut();
        let frame = match &mut this.source {
            BodySource::Local(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            BodySource::Upstream(download) => ready!(Pin::new(download).poll_frame(cx)),
            BodySource::Scrubbed(searched) => ready!(Pin::new(searched).poll_frame(cx)),
        };
        match &frame {
            Some(Ok(frame)) => this.record.note_bytes(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(fault)) => this.record.note_stream_error(fault),
            None => this.record.note_complete(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_at_end()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            BodySource::Local(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            BodySource::Upstream(download) => download.size_hint(),
            BodySource::Scrubbed(searched) => searched.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if self.source.is_at_end() {
            self.record.note_complete();
        }
    }
}
