//! Secrets: a type that can be sent upstream and nowhere else.
//!
//! It has neither `Display` nor `Serialize`, its `Debug` is redacted, and its memory is wiped when the last user of it
//! is gone, also where it became a header value.

mod key_hash;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::HeaderValue;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

pub use key_hash::KeyHash;

/// A secret of visible ASCII characters.
#[derive(Debug, Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes the text of a secret, without the white space around it.
    ///
    /// # Errors
    /// Why it cannot be one; never its text.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if text.is_empty() {
            return Err("it is empty");
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("it has characters that no secret here may have (blanks, control characters or non-ASCII)");
        }
        Ok(Self(SecretString::from(text)))
    }

    /// Lends the text to `f`: the only way to it, so that every use of one can be found.
    pub fn expose<T>(&self, f: impl FnOnce(&str) -> T) -> T {
        f(self.0.expose_secret())
    }

    /// Tells this secret from others, and tells nothing else of it: the start of its SHA-256, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        hash_prefix(self.0.expose_secret().as_bytes(), 16)
    }

    /// A header value of `scheme` and the secret, marked sensitive, wiped when its last clone is gone.
    pub fn header(&self, scheme: &str) -> HeaderValue {
        // One allocation: a buffer that grows leaves copies behind.
        let text = wiped([scheme, self.0.expose_secret()].concat().into_bytes());
        let mut value = HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

/// The first `bytes` bytes of the SHA-256 of `data`, in hexadecimal.
pub(crate) fn hash_prefix(data: &[u8], bytes: usize) -> String {
    let hash = digest(&SHA256, data);
    hex::encode(hash.as_ref().get(..bytes).unwrap_or_default())
}

/// Keeps this process' memory, where secrets are, from core files and from other processes of its user.
pub fn disable_core_dumps() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    // Where the kernel allows neither, the secrets are as safe as its settings are.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// Wraps bytes in a buffer that overwrites them when its last clone is dropped.
pub(crate) fn wiped(bytes: Vec<u8>) -> Bytes {
    struct Wiped(Zeroizing<Vec<u8>>);
    impl AsRef<[u8]> for Wiped {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Wiped(Zeroizing::new(bytes)))
}
