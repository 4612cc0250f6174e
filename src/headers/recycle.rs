//! Thread-local free list of header maps. A map is too large for the allocator to allocate quickly.
//!
//! hyper reads a response into the map of its request, and the next request of a client into the map of the last response,
//! which then returns to this list.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use http::HeaderMap;

/// Capacities of maps that the list keeps: a usual request or response, and the fields that the gateway adds.
const CAPACITIES: RangeInclusive<usize> = 24..=48;

/// Maximum number of maps in the list of a worker.
const MAX_POOLED: usize = 64;

thread_local! {
    static POOL: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// Clears a map, and adds it to the list.
pub fn recycle(mut fields: HeaderMap) {
    fields.clear();
    if CAPACITIES.contains(&fields.capacity()) {
        POOL.with_borrow_mut(|pool| {
            if pool.len() < MAX_POOLED {
                pool.push(fields);
            }
        });
    }
}

/// Returns an empty map for an outgoing request.
pub(super) fn take() -> HeaderMap {
    let pooled = POOL.with_borrow_mut(Vec::pop);
    pooled.unwrap_or_else(|| HeaderMap::with_capacity(*CAPACITIES.start()))
}
