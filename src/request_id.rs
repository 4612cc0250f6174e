//! Request ids: the id of the caller if it is a safe token, or else a new UUIDv7.

use std::cell::RefCell;
use std::time::SystemTime;

use bytes::Bytes;
use fastrand::Rng;
use http::{HeaderMap, HeaderValue};

use crate::headers::{REQUEST_ID, is_safe_token, single};
use crate::identify::contains_gateway_key;
use crate::random;

thread_local! {
    /// Random generator of this thread. An id is unique and not secret, so it needs no system call.
    static RANDOM: RefCell<Rng> = RefCell::new(Rng::with_seed(random::seed()));
}

/// Returns the id of a request that arrived at `at`.
pub fn of(headers: &HeaderMap, at: SystemTime) -> HeaderValue {
    let given = single(headers, &REQUEST_ID, "X-Request-Id occurs more than once");
    match given {
        Ok(Some(id)) if id.to_str().is_ok_and(is_own_id) => id.clone(),
        _ => new(at),
    }
}

/// Returns whether a caller's id may go into logs and to Cal.com. A gateway key may not.
fn is_own_id(id: &str) -> bool {
    is_safe_token(id) && !contains_gateway_key(id.as_bytes())
}

/// Creates a UUIDv7 (RFC 9562 §5.7).
pub fn new(at: SystemTime) -> HeaderValue {
    let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since_epoch.as_millis()).unwrap_or(0);
    let mut random = [0; 10];
    RANDOM.with_borrow_mut(|generator| generator.fill(&mut random));
    let uuid = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    uuid.hyphenated().encode_lower(&mut text);
    // Both responses and requests carry the id. The owner shares its text without another copy.
    HeaderValue::from_maybe_shared(Bytes::from_owner(text)).unwrap_or_else(|_| HeaderValue::from_static("none"))
}
