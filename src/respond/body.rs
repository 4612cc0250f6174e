//! Body of a response to a client. It carries the record of the request to its end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::forward::{Download, DownloadFault};
use crate::record::Record;
use crate::respond::scrubbed_body::ScrubbedBody;

/// Where an answer's bytes come from.
pub enum BodySource {
    /// The gateway itself.
    Own(Option<Bytes>),
    /// Cal.com.
    Upstream(Download),
    /// Cal.com, without a secret.
    Scrubbed(Box<ScrubbedBody>),
}

impl From<Bytes> for BodySource {
    fn from(bytes: Bytes) -> Self {
        Self::Own((!bytes.is_empty()).then_some(bytes))
    }
}

impl From<Download> for BodySource {
    fn from(download: Download) -> Self {
        Self::Upstream(download)
    }
}

impl BodySource {
    fn is_over(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Upstream(download) => download.is_end_stream(),
            Self::Scrubbed(searched) => searched.is_end_stream(),
        }
    }
}

/// The body of an answer.
pub struct ResponseBody {
    source: BodySource,
    record: Box<Record>,
}

impl ResponseBody {
    pub(super) fn new(source: BodySource, mut record: Box<Record>) -> Self {
        if matches!(source, BodySource::Own(_)) {
            record.give_up_place();
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
            BodySource::Own(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            BodySource::Upstream(download) => ready!(Pin::new(download).poll_frame(cx)),
            BodySource::Scrubbed(searched) => ready!(Pin::new(searched).poll_frame(cx)),
        };
        match &frame {
            Some(Ok(frame)) => this.record.note_bytes(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(fault)) => this.record.note_broken(fault),
            None => this.record.note_complete(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            BodySource::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            BodySource::Upstream(download) => download.size_hint(),
            BodySource::Scrubbed(searched) => searched.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if self.source.is_over() {
            self.record.note_complete();
        }
    }
}
