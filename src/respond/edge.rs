//! Error pages of the edge in front of Cal.com: whether one reports that the edge limits the rate.
//!
//! The edge refuses requests for many reasons, such as a `User-Agent` or a word in a body. Only Cloudflare's error 1015 is
//! about rate. Its number is in the page, whatever the status is.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use http::Response;
use serde::Deserialize;

use crate::budget::Slot;
use crate::forward::Download;
use crate::respond::scrub::Coding;

/// Bytes of a page that are searched. The number is in its title, and in its first lines.
const SEARCHED: usize = 16 * 1024;

/// Cloudflare's number for "You are being rate limited".
const RATE_LIMITED: &[u8] = b"1015";

/// The edge's own error as JSON.
#[derive(Deserialize)]
struct EdgeError {
    error_code: Option<u32>,
}

/// How far before the number the word "error" may end: `error code: 1015`, `"error_code":1015`, `cf-error-code">1015`.
const APART: usize = 24;

/// Tells the budget of `slot` when the body of an error says that the edge limits the rate. The body stays complete. Call it
/// where [`crate::ratelimit::usage_headers::is_body_decisive`].
pub async fn note_edge_limit(answer: &mut Response<Download>, slot: &Slot) {
    let start = answer.body_mut().peek(SEARCHED).await;
    let is_gzip = Coding::of(answer.headers()) == Coding::Gzip;
    let is_limited = if is_gzip { reports_rate_limit(&inflated_start(&start)) } else { reports_rate_limit(&start) };
    if is_limited {
        slot.record_edge_limit(answer.status(), answer.headers());
    }
}

/// As much as can be decompressed of the start of a body.
fn inflated_start(start: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    // What was read before the end of the start is kept, although the end is missing.
    let _ = MultiGzDecoder::new(start).take(SEARCHED as u64).read_to_end(&mut text);
    text
}

/// Whether a body reports error 1015. JSON does so by its own `error_code`, because Cal.com's errors repeat the request's path
/// and query (FACTS §6). A page has the number as a whole number shortly after the word "error".
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
        let near = before.get(before.len().saturating_sub(APART)..).unwrap_or_default();
        let follows_error = near.windows(5).any(|word| word.eq_ignore_ascii_case(b"error"));
        follows_error && !is_part_of_number(before.last()) && !is_part_of_number(after)
    })
}
