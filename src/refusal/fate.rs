//! Messages about requests that have no response of Cal.com's to show, and may have been carried out.

use http::StatusCode;

/// What a client is told where Cal.com could not be reached, or the connection broke.
pub(super) fn unreachable(sent: bool) -> String {
    let fate = if sent {
        "Whether the request was carried out is unknown unless it was a GET."
    } else {
        "The request was not sent."
    };
    format!("Cal.com could not be reached. {fate}")
}

/// What a client is told where Cal.com's response broke off.
pub(super) fn broken(status: StatusCode) -> String {
    format!(
        "Cal.com answered {}, and its response broke off. The request was sent, and may have been carried out: check before \
         you send it again.",
        status.as_u16()
    )
}

/// What a client is told where the gateway ends first.
pub(super) fn stopping(sent: bool) -> String {
    let fate = if sent {
        "The request was sent to Cal.com, and may have been carried out: check before you send it again."
    } else {
        "The request was not sent to Cal.com. Send it again."
    };
    format!("The gateway ended before it had a response. {fate}")
}
