//! Every request's id: the caller's own if it is a safe token, a UUIDv7 otherwise. Used by `record`.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use crate::headers::{REQUEST_ID, is_safe_token, single};
use crate::identify::holds_key;

thread_local! {
    /// Where this thread's sequence stands. An id has to be unique, not secret, so it needs no system call.
    static SEQUENCE: Cell<u64> = Cell::new(RandomState::new().hash_one(std::thread::current().id()));
}

/// The id of a request that arrived at `at` with `headers`.
pub fn of(headers: &HeaderMap, at: SystemTime) -> HeaderValue {
    let given = single(headers, &REQUEST_ID, "X-Request-Id occurs more than once");
    match given {
        Ok(Some(id)) if id.to_str().is_ok_and(is_own_id) => id.clone(),
        _ => new(at),
    }
}

/// Returns whether a caller's id may go into logs and to Cal.com, which a gateway key may not.
fn is_own_id(id: &str) -> bool {
    is_safe_token(id) && !holds_key(id.as_bytes())
}

/// A new UUIDv7 (RFC 9562 §5.7).
pub fn new(at: SystemTime) -> HeaderValue {
    let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since_epoch.as_millis()).unwrap_or(0);
    let mut random = [0; 10];
    let (high, low) = random.split_at_mut(8);
    high.copy_from_slice(&next().to_be_bytes());
    low.copy_from_slice(next().to_be_bytes().first_chunk::<2>().unwrap_or(&[0; 2]));
    let uuid = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    uuid.hyphenated().encode_lower(&mut text);
    // It goes out on both sides: owned in this way, its text is shared without being moved first.
    HeaderValue::from_maybe_shared(Bytes::from_owner(text)).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

/// The next number of this thread's sequence (`SplitMix64`).
fn next() -> u64 {
    let state = SEQUENCE.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
    SEQUENCE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
