//! Room for header fields, used again by one request after the other: it is too large for the allocator to be quick with.
//!
//! It goes round: hyper reads an answer into the room of the request that was answered, and a caller's next request into
//! that of the answer, where it comes back here.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use http::HeaderMap;

/// Fields that a room is kept for: what a request or an answer has, mostly, and what the gateway adds.
const FIELDS: RangeInclusive<usize> = 24..=48;

/// Rooms that one worker keeps at most.
const MOST: usize = 64;

thread_local! {
    static ROOMS: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// Drops the fields of a request that is over, and keeps their room.
pub fn recycle(mut fields: HeaderMap) {
    fields.clear();
    if FIELDS.contains(&fields.capacity()) {
        ROOMS.with_borrow_mut(|rooms| {
            if rooms.len() < MOST {
                rooms.push(fields);
            }
        });
    }
}

/// Room for the fields of a request that goes out.
pub(super) fn room() -> HeaderMap {
    let room = ROOMS.with_borrow_mut(Vec::pop);
    room.unwrap_or_else(|| HeaderMap::with_capacity(*FIELDS.start()))
}
