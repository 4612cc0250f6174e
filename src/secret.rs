//! Type of secrets, which prevents that a secret reaches a log, and hashes of secrets.
//!
//! A [`Secret`] has neither `Display` nor `Serialize`, and its `Debug` is redacted. Its memory is wiped when its last clone is
//! dropped. This includes header values made from it.

mod key_hash;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::HeaderValue;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

pub use key_hash::KeyHash;

/// Secret of visible ASCII characters.
#[derive(Debug, Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes the text of a secret and trims white space around it.
    ///
    /// # Errors
    /// The reason why the text cannot be a secret, without the text itself.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if text.is_empty() {
            return Err("it is empty");
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("it contains a blank, a control character or a character outside ASCII");
        }
        Ok(Self(SecretString::from(text)))
    }

    /// Passes the text to `f`. No other method gives access to it, so a search for this name finds every use of a secret.
    pub fn expose<T>(&self, f: impl FnOnce(&str) -> T) -> T {
        f(self.0.expose_secret())
    }

    /// Returns the first 16 bytes of the SHA-256 in hexadecimal, which identify the secret without revealing it.
    pub fn fingerprint(&self) -> String {
        hash_prefix(self.0.expose_secret().as_bytes(), 16)
    }

    /// Returns a sensitive header value of `scheme` and the secret. Its memory is wiped when its last clone is dropped.
    pub fn header(&self, scheme: &str) -> HeaderValue {
        // One allocation, because a buffer that grows leaves copies behind.
        let text = wiped([scheme, self.0.expose_secret()].concat().into_bytes());
        let mut value = HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

/// Returns the first `bytes` bytes of the SHA-256 of `data` in hexadecimal.
pub(crate) fn hash_prefix(data: &[u8], bytes: usize) -> String {
    let hash = digest(&SHA256, data);
    hex::encode(hash.as_ref().get(..bytes).unwrap_or_default())
}

/// Keeps the memory of this process, which holds secrets, out of core dumps and unreadable for other processes of its user.
pub fn disable_core_dumps() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    // Best effort: if the kernel rejects a call, its own settings decide.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// Wraps bytes in a buffer that wipes them when its last clone is dropped.
pub(crate) fn wiped(bytes: Vec<u8>) -> Bytes {
    struct Wiped(Zeroizing<Vec<u8>>);
    impl AsRef<[u8]> for Wiped {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Wiped(Zeroizing::new(bytes)))
}
