//! Failures of requests without a response: their refusals, and whether the request may be sent again.

use std::error::Error as _;
use std::fmt::Display;

use crate::forward::upload::Upload;
use crate::forward::upload_state::UploadProgress;
use crate::refusal::Refusal;
use crate::untrusted::sanitize;

/// Failure of a request without a response.
pub(super) struct SendFailure {
    pub(super) refusal: Refusal,
    /// Body to send again, if that is safe.
    pub(super) again: Option<Upload>,
}

impl From<Refusal> for SendFailure {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, again: None }
    }
}

/// Returns the refusal for a request without a connection. Nothing of it was sent.
pub(super) fn unreachable(why: impl Display) -> Refusal {
    Refusal::UpstreamUnreachable { reason: sanitize(why).into(), sent: false }
}

/// Returns whether upstream guarantees that it did not process a request, so that any method can be sent again: it ended the
/// connection at an earlier stream, for whatever reason (RFC 9113 §6.8), or refused this one (§8.7).
pub(super) fn is_unprocessed(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>()).filter(|cause| cause.is_remote());
    // The library reports a peer's GOAWAY to the streams above its last stream id alone.
    cause.is_some_and(|cause| {
        cause.is_go_away() || (cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

/// Returns the refusal for a failed exchange. The caller's own body may be the reason. `sent` says whether the request may
/// have been sent.
pub(super) fn refusal(error: &hyper::Error, body: &UploadProgress, sent: bool) -> Refusal {
    if let Some(fault) = body.fault() {
        return fault.into();
    }
    if error.is_parse() {
        return Refusal::UpstreamInvalid;
    }
    Refusal::UpstreamUnreachable { reason: describe(error).into(), sent }
}

/// Describes a failed exchange for the log. Of an HTTP/2 error it gives only the code, because the text of a GOAWAY frame
/// comes from the peer.
pub(super) fn describe(error: &hyper::Error) -> String {
    let source = error.source();
    match source.and_then(|source| source.downcast_ref::<h2::Error>()).map(|fault| (fault, fault.reason())) {
        Some((fault, Some(reason))) => {
            let what = if fault.is_go_away() { "GOAWAY" } else { "RST_STREAM" };
            format!("HTTP/2 {what}, code {} ({})", u32::from(reason), reason.description())
        }
        _ => sanitize(source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))),
    }
}
