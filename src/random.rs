//! Predictable random numbers that spread load and distinguish processes. Keys come from `aws-lc-rs` instead.

use std::hash::{BuildHasher as _, RandomState};

/// Returns a seed that differs between calls, processes and hosts.
///
/// `fastrand` seeds its own generator by the time and the thread id, which two replicas may have in common.
pub fn seed() -> u64 {
    RandomState::new().hash_one(())
}
