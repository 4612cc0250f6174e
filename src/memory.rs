//! Memory of an idle gateway: temporary heaps, and the return of free memory to the system.
//!
//! The allocator has a heap for each thread, and returns only whole free pages. Short-lived allocations must therefore not be
//! scattered among allocations that live as long as the process.

use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;
use std::{hint, panic};

/// Delay before free memory is returned, 2 s: longer than the second for which mimalloc keeps free memory by default.
const PURGE_DELAY: Duration = Duration::from_secs(2);

/// Runs `work` on a temporary heap, and frees the heap afterwards. For work that needs far more memory than its result.
pub(crate) fn on_scratch_heap<T: Send>(work: impl Fn() -> T + Sync) -> T {
    let done = thread::scope(|scope| {
        let started = thread::Builder::new().name("scratch-heap".to_owned()).spawn_scoped(scope, &work);
        started.ok().map(ScopedJoinHandle::join)
    });
    match done {
        Some(done) => done.unwrap_or_else(|panicked| panic::resume_unwind(panicked)),
        // Without a thread, more memory stays in use.
        None => work(),
    }
}

/// Returns the memory that reading a configuration needed: 300 MB for 100,000 consumers. The allocator returns it at the next
/// allocation of any thread, and the threads of an idle gateway allocate nothing.
#[expect(clippy::disallowed_methods, reason = "this thread serves no connection")]
pub(crate) fn release_to_os() {
    let allocate_later = || {
        thread::sleep(PURGE_DELAY);
        drop(hint::black_box(Box::new(0_u8)));
    };
    // Without a thread, the memory stays in use until another thread allocates.
    drop(thread::Builder::new().name("release-memory".to_owned()).spawn(allocate_later));
}
