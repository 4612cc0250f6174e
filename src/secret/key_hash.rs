//! Hash of a gateway key, as the configuration lists it.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};

/// SHA-256 of a gateway key, written as `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

// It writes the bytes without their length, for the hasher of the key table. The derived equality compares the same bytes.
impl std::hash::Hash for KeyHash {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl KeyHash {
    /// Parses the form of the configuration.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:")?;
        let mut hash = [0; 32];
        hex::decode_to_slice(digits, &mut hash).ok()?;
        Some(Self(hash))
    }

    /// Returns the first digits, which suffice to find the line in a configuration.
    pub(crate) fn start(&self) -> String {
        let start = self.0.first_chunk::<6>().map_or_else(String::new, hex::encode);
        format!("sha256:{start}…")
    }

    /// Hashes a gateway key.
    pub(crate) fn of(key: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
        Self(hash)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
