//! Rate-limit header fields of a client's bucket: Cal.com's names (FACTS §2), and draft-ietf-httpapi-ratelimit-
//! headers-10.

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use smallvec::SmallVec;

use crate::headers::{LIMIT, POLICY, RATE_LIMIT, REMAINING, RESET};
use crate::ratelimit::RateLimitStatus;
use crate::refusal::retry_after_secs;

/// Puts them on an answer.
pub(super) fn put(headers: &mut HeaderMap, standing: RateLimitStatus) {
    let quota = (standing.limit, retry_after_secs(standing.window));
    let stand = (standing.remaining, seconds_up(standing.reset));
    let (policy, limit, _) = QUOTAS.with_borrow_mut(|told| again(told, quota, ["q", "w"]));
    let (rate_limit, remaining, reset) = STANDS.with_borrow_mut(|told| again(told, stand, ["r", "t"]));
    headers.insert(LIMIT, limit);
    headers.insert(REMAINING, remaining);
    headers.insert(RESET, reset);
    headers.insert(POLICY, policy);
    headers.insert(RATE_LIMIT, rate_limit);
}

/// Two numbers as `"default";first=…;second=…`, and each by itself.
type Values = (HeaderValue, HeaderValue, HeaderValue);

/// What was told last, by its numbers.
type Told = SmallVec<[((u32, u64), Values); 4]>;

thread_local! {
    /// What this worker told of quotas: they are those of a few tiers.
    static QUOTAS: RefCell<Told> = const { RefCell::new(SmallVec::new_const()) };
    /// And of buckets: callers that ask now and then all find them the same, full but for one token.
    static STANDS: RefCell<Told> = const { RefCell::new(SmallVec::new_const()) };
}

fn again(told: &mut Told, numbers: (u32, u64), names: [&str; 2]) -> Values {
    if let Some((_, values)) = told.iter().find(|(of, _)| *of == numbers) {
        return values.clone();
    }
    let values = pair(numbers, names);
    if told.len() == told.inline_size() {
        told.remove(0);
    }
    told.push((numbers, values.clone()));
    values
}

/// All in one piece of memory, as they are on every answer.
fn pair((a, b): (u32, u64), [first, second]: [&str; 2]) -> Values {
    let mut text = Vec::with_capacity(64);
    text.extend_from_slice(b"\"default\";");
    let a = number(&mut text, first, a.into());
    text.push(b';');
    let b = number(&mut text, second, b);
    let text = Bytes::from(text);
    let (a, b) = (text.slice(a), text.slice(b));
    (value(text), value(a), value(b))
}

/// Writes `name=number`, and tells where the number stands.
fn number(text: &mut Vec<u8>, name: &str, number: u64) -> std::ops::Range<usize> {
    text.extend_from_slice(name.as_bytes());
    text.push(b'=');
    let start = text.len();
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    start..text.len()
}

fn value(text: Bytes) -> HeaderValue {
    // Digits and the texts above are always a value.
    HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Seconds rounded up; a full bucket has none to wait.
fn seconds_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
