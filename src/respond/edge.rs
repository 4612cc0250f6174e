//! Recognises error pages of the edge in front of Cal.com that report a rate limit.
//!
//! The edge rejects requests for many reasons, such as a `User-Agent` or a word in a body. Only error 1015 of Cloudflare
//! reports a rate limit. The page contains its number, whatever the status is.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use http::Response;
use serde::Deserialize;

use crate::budget::Slot;
use crate::forward::Download;
use crate::respond::scrub::Coding;

/// Bytes of a page that are searched, 16 KiB. The number is in its title and in its first lines.
const MAX_PAGE: usize = 16 * 1024;

/// Number of the Cloudflare error "You are being rate limited".
const RATE_LIMITED: &[u8] = b"1015";

/// Error of the edge in JSON.
#[derive(Deserialize)]
struct EdgeError {
    error_code: Option<u32>,
}

/// Maximum distance in bytes between the number and the word "error" before it, as in `error code: 1015`,
/// `"error_code":1015` and `cf-error-code">1015`.
const MAX_DISTANCE: usize = 24;

/// Reports a rate limit of the edge to the budget of `slot`, if the body of an error names one. The body stays complete.
/// Call it if [`crate::ratelimit::usage_headers::is_body_decisive`].
pub async fn note_edge_limit(answer: &mut Response<Download>, slot: &Slot) {
    let start = answer.body_mut().peek(MAX_PAGE).await;
    let is_gzip = Coding::of(answer.headers()) == Coding::Gzip;
    let is_limited = if is_gzip { reports_rate_limit(&inflate_start(&start)) } else { reports_rate_limit(&start) };
    if is_limited {
        slot.record_edge_limit(answer.status(), answer.headers());
    }
}

/// Decompresses the start of a body as far as possible.
fn inflate_start(start: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    // The start of a body has no end, so the result of the decoder does not matter.
    let _ = MultiGzDecoder::new(start).take(MAX_PAGE as u64).read_to_end(&mut text);
    text
}

/// Returns whether a body reports error 1015. In JSON, only `error_code` counts, because Cal.com's errors repeat the path
/// and the query of the request (FACTS §6). In a page, 1015 must be a whole number shortly after the word "error".
pub fn reports_rate_limit(text: &[u8]) -> bool {
    if text.trim_ascii_start().starts_with(b"{") {
        let code = serde_json::from_slice::<EdgeError>(text).ok().and_then(|error| error.error_code);
        return code == Some(1015);
    }
    let is_part_of_number = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let numbers = text.windows(RATE_LIMITED.len()).enumerate().filter(|(_, window)| *window == RATE_LIMITED);
    numbers.into_iter().any(|(at, _)| {
        let (before, rest) = text.split_at_checked(at).unwrap_or_default();
        let after = rest.get(RATE_LIMITED.len());
        let near = before.get(before.len().saturating_sub(MAX_DISTANCE)..).unwrap_or_default();
        let follows_error = near.windows(5).any(|word| word.eq_ignore_ascii_case(b"error"));
        follows_error && !is_part_of_number(before.last()) && !is_part_of_number(after)
    })
}
