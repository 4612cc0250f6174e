//! How a caller's bucket stands, as headers: Cal.com's names (seconds left in `Reset`, FACTS §2), and those of the IETF
//! draft (draft-ietf-httpapi-ratelimit-headers-10).

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use crate::limit::Standing;
use crate::refusal::whole_seconds;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-default");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-default");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-default");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Puts them on an answer.
pub(super) fn put(headers: &mut HeaderMap, standing: Standing) {
    let Standing { limit, remaining, .. } = standing;
    let (reset, window) = (seconds_up(standing.reset), whole_seconds(standing.window));
    let mut values = Values(BytesMut::with_capacity(128));
    headers.insert(LIMIT, values.of([("", limit.into())]));
    headers.insert(REMAINING, values.of([("", remaining.into())]));
    headers.insert(RESET, values.of([("", reset)]));
    headers.insert(POLICY, values.of([("\"default\";q=", limit.into()), (";w=", window)]));
    headers.insert(RATE_LIMIT, values.of([("\"default\";r=", remaining.into()), (";t=", reset)]));
}

/// Header values out of one piece of memory: they are on every answer.
struct Values(BytesMut);

impl Values {
    /// Each text with its number behind it.
    fn of<const N: usize>(&mut self, parts: [(&'static str, u64); N]) -> HeaderValue {
        for (text, number) in parts {
            self.0.put_slice(text.as_bytes());
            self.0.put_slice(itoa::Buffer::new().format(number).as_bytes());
        }
        // Digits and the texts above are always a value.
        HeaderValue::from_maybe_shared(self.0.split().freeze()).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// Seconds rounded up; a full bucket has none to wait.
fn seconds_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
