//! Recognises the 403 by which Cal.com rejects a deleted access token.
//!
//! On 16 operations, a class guard runs before authentication. It answers 403 and repeats the token (FACTS §1). If this
//! message contains the token of the request, Cal.com carried nothing out, and the token is dead.

use http::{Response, StatusCode};

use crate::credential::AuthHeaders;
use crate::forward::Download;
use crate::respond::scrub::{Coding, MAX_ERROR, inflate, is_text};

/// Message before the token.
const MESSAGE: &[u8] = b"PermissionsGuard - no oAuth client found for access token=";

/// Returns whether a response rejects the injected bearer token as deleted. The body of the response stays complete.
pub async fn names_dead_token(answer: &mut Response<Download>, auth_headers: &AuthHeaders) -> bool {
    let AuthHeaders::Bearer(_) = auth_headers else { return false };
    let Some(token) = auth_headers.secret().filter(|_| answer.status() == StatusCode::FORBIDDEN) else { return false };
    if !is_text(answer.headers()) {
        return false;
    }
    let Some(body) = answer.body_mut().peek_up_to(MAX_ERROR).await else { return false };
    match Coding::of(answer.headers()) {
        Coding::Identity => has_message(&body, token),
        Coding::Gzip => inflate(&body).is_some_and(|body| has_message(&body, token)),
        Coding::Other => false,
    }
}

/// Returns whether a text contains the message with exactly this token.
fn has_message(text: &[u8], token: &[u8]) -> bool {
    let starts = text.windows(MESSAGE.len()).enumerate().filter(|(_, window)| *window == MESSAGE);
    let after = |at: usize| text.get(at + MESSAGE.len()..).and_then(|rest| rest.strip_prefix(token));
    let ends = |rest: &[u8]| !rest.first().is_some_and(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(b));
    !token.is_empty() && starts.filter_map(|(at, _)| after(at)).any(ends)
}
