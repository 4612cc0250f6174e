//! Rate-limit header fields of a caller's bucket: Cal.com's names (FACTS §2), and those of
//! draft-ietf-httpapi-ratelimit-headers-10.

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use smallvec::SmallVec;

use crate::headers::{LIMIT, POLICY, RATE_LIMIT, REMAINING, RESET};
use crate::ratelimit::RateLimitStatus;
use crate::refusal::retry_after_secs;

/// Inserts the fields into a response.
pub(super) fn insert(headers: &mut HeaderMap, standing: RateLimitStatus) {
    let quota = (standing.limit, retry_after_secs(standing.window));
    let state = (standing.remaining, seconds_rounded_up(standing.reset));
    let (policy, limit, _) = QUOTA_CACHE.with_borrow_mut(|cache| cached(cache, quota, ["q", "w"]));
    let (rate_limit, remaining, reset) = STATUS_CACHE.with_borrow_mut(|cache| cached(cache, state, ["r", "t"]));
    headers.insert(LIMIT, limit);
    headers.insert(REMAINING, remaining);
    headers.insert(RESET, reset);
    headers.insert(POLICY, policy);
    headers.insert(RATE_LIMIT, rate_limit);
}

/// Two numbers as `"default";first=…;second=…`, and each on its own.
type Values = (HeaderValue, HeaderValue, HeaderValue);

/// Last values, by their numbers.
type ValueCache = SmallVec<[((u32, u64), Values); 4]>;

thread_local! {
    /// Values for quotas. A configuration has few tiers.
    static QUOTA_CACHE: RefCell<ValueCache> = const { RefCell::new(SmallVec::new_const()) };
    /// Values for the states of buckets. Callers with few requests all have the same state: full but for one token.
    static STATUS_CACHE: RefCell<ValueCache> = const { RefCell::new(SmallVec::new_const()) };
}

fn cached(cache: &mut ValueCache, numbers: (u32, u64), names: [&str; 2]) -> Values {
    if let Some((_, values)) = cache.iter().find(|(of, _)| *of == numbers) {
        return values.clone();
    }
    let values = format_pair(numbers, names);
    if cache.len() == cache.inline_size() {
        cache.remove(0);
    }
    cache.push((numbers, values.clone()));
    values
}

/// Formats the three values in one allocation, because every response has them.
fn format_pair((a, b): (u32, u64), [first, second]: [&str; 2]) -> Values {
    let mut text = Vec::with_capacity(64);
    text.extend_from_slice(b"\"default\";");
    let a = write_number(&mut text, first, a.into());
    text.push(b';');
    let b = write_number(&mut text, second, b);
    let text = Bytes::from(text);
    let (a, b) = (text.slice(a), text.slice(b));
    (header_value(text), header_value(a), header_value(b))
}

/// Writes `name=number`, and returns the range of the number.
fn write_number(text: &mut Vec<u8>, name: &str, number: u64) -> std::ops::Range<usize> {
    text.extend_from_slice(name.as_bytes());
    text.push(b'=');
    let start = text.len();
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    start..text.len()
}

fn header_value(text: Bytes) -> HeaderValue {
    // The text is ASCII, so it is always a valid value.
    HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Rounds up to whole seconds. A full bucket has zero.
fn seconds_rounded_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
