//! Random numbers that spread load and tell processes apart. They are predictable: keys come from `aws-lc-rs`.

use std::hash::{BuildHasher as _, RandomState};

/// Returns another seed at each call, in each process and on each host.
///
/// The generator of `fastrand` seeds itself by the time and the thread, which two replicas may have in common.
pub fn seed() -> u64 {
    RandomState::new().hash_one(())
}
