//! Messages that say whether Cal.com may have carried out a request.

use http::StatusCode;

/// Message if Cal.com could not be reached or the connection broke.
pub(super) fn unreachable(sent: bool) -> String {
    let fate = if sent {
        "Whether the request was carried out is unknown unless it was a GET."
    } else {
        "The request was not sent."
    };
    format!("Cal.com could not be reached. {fate}")
}

/// Message if the response of Cal.com broke off.
pub(super) fn broken(status: StatusCode) -> String {
    format!(
        "Cal.com answered {}, and its response broke off. The request was sent, and may have been carried out: check before \
         you send it again.",
        status.as_u16()
    )
}

/// Message if the gateway stopped before Cal.com responded.
pub(super) fn stopping(sent: bool) -> String {
    let fate = if sent {
        "The request was sent to Cal.com, and may have been carried out: check before you send it again."
    } else {
        "The request was not carried out. Send it again."
    };
    format!("The gateway stopped before it had a response. {fate}")
}
