//! Hasher for keys that are already hashes.

use std::hash::Hasher;

/// Hasher that returns the first eight bytes of a key, which must be a hash itself.
#[derive(Default)]
pub struct PrefixHasher(u64);

impl Hasher for PrefixHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
    }
}
