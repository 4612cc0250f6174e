//! Keeps the memory of an idle gateway small.
//!
//! The allocator has a heap for each thread, and gives back of it what is free in one piece. What lives for a moment must not
//! be scattered among what lives as long as the process.

use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;
use std::{hint, panic};

/// How long the allocator keeps memory that is free, in case it is wanted again. (mimalloc's default is a second.)
const KEPT_FREE: Duration = Duration::from_secs(2);

/// Has `work` done on a heap of its own, which ends with it: for what takes far more memory than its result.
pub(crate) fn apart<T: Send>(work: impl Fn() -> T + Sync) -> T {
    let done = thread::scope(|scope| {
        let started = thread::Builder::new().name("apart".to_owned()).spawn_scoped(scope, &work);
        started.ok().map(ScopedJoinHandle::join)
    });
    match done {
        Some(done) => done.unwrap_or_else(|panicked| panic::resume_unwind(panicked)),
        // Where there is no thread for it, more memory stays in use.
        None => work(),
    }
}

/// Has the memory given back that reading a configuration took: 300 MB for 100,000 consumers.
/// The allocator gives it back when some thread next allocates, which on an idle gateway none does.
#[expect(clippy::disallowed_methods, reason = "this thread only gives memory back")]
pub(crate) fn give_back() {
    let look_again = || {
        thread::sleep(KEPT_FREE);
        drop(hint::black_box(Box::new(0_u8)));
    };
    // Where there is no thread for it, there is more memory in use for a while.
    drop(thread::Builder::new().name("give-back".to_owned()).spawn(look_again));
}
