//! Detection of secrets in the wrong place: a gateway key or a configured secret in a target or header that is forwarded.
//!
//! Proxies and Cal.com log request targets. Every request is checked, so the check examines only long words: a normal target has
//! few of them, and every key is one.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use http::HeaderMap;
use http::header::HeaderName;
use memchr::{memchr, memmem};
use percent_encoding::percent_decode;
use smallvec::SmallVec;

use super::key::PREFIX;
use crate::headers;
use crate::refusal::{Leak, Refusal};

/// Minimum length of a word that is checked, 16 bytes. A shorter secret cannot be told from an ordinary word.
const MIN_SECRET: usize = 16;

/// Number of characters after `calgate_` that distinguish a key from a name with this start, 24. A whole key has 48.
const KEY_CHARACTERS: usize = 24;

/// Maximum number of times that a target is percent-decoded, 3, because proxies may encode an encoded target again.
const MAX_DECODINGS: usize = 3;

/// Finds secrets in the parts of a request that are forwarded.
#[derive(Debug, Default)]
pub struct LeakGuard {
    /// Keyed hashes of the longest words of the configured secrets.
    secrets: HashSet<u64>,
    hasher: RandomState,
}

impl LeakGuard {
    /// Creates a guard that recognises gateway keys only.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a configured secret.
    pub fn add(&mut self, secret: &[u8]) {
        let longest = secret.split(|b| !is_word(*b)).max_by_key(|word| word.len());
        if let Some(word) = longest.filter(|word| word.len() >= MIN_SECRET) {
            self.secrets.insert(self.hasher.hash_one(word));
        }
    }

    /// Checks the target and the forwarded headers of a request: those of the built-in list and `extra`.
    ///
    /// # Errors
    /// [`Refusal::Leak`] if one of them contains a secret.
    pub fn check(&self, target: &str, fields: &HeaderMap, extra: &[HeaderName]) -> Result<(), Refusal> {
        if let Some(leak) = self.in_target(target) {
            return Err(Refusal::Leak(leak));
        }
        for (name, value) in fields {
            let is_long = value.len() >= PREFIX.len() + KEY_CHARACTERS;
            if is_long && contains_gateway_key(value.as_bytes()) && headers::is_forwarded(name, extra) {
                return Err(Refusal::Leak(Leak::KeyInHeader));
            }
        }
        Ok(())
    }

    fn in_target(&self, target: &str) -> Option<Leak> {
        let found = self.in_text(target.as_bytes());
        if found.is_some() || memchr(b'%', target.as_bytes()).is_none() {
            return found;
        }
        let mut text: SmallVec<[u8; 256]> = SmallVec::from_slice(target.as_bytes());
        for _ in 0..MAX_DECODINGS {
            let decoded: SmallVec<[u8; 256]> = percent_decode(&text).collect();
            if decoded == text {
                return None;
            }
            text = decoded;
            if let Some(leak) = self.in_text(&text) {
                return Some(leak);
            }
        }
        None
    }

    fn in_text(&self, text: &[u8]) -> Option<Leak> {
        text.split(|b| !is_word(*b)).filter(|word| word.len() >= MIN_SECRET).find_map(|word| {
            if contains_gateway_key(word) {
                Some(Leak::KeyInTarget)
            } else {
                self.secrets.contains(&self.hasher.hash_one(word)).then_some(Leak::SecretInTarget)
            }
        })
    }
}

/// Returns whether a text contains a gateway key, or the start of one.
pub(crate) fn contains_gateway_key(text: &[u8]) -> bool {
    memmem::find_iter(text, PREFIX.as_bytes()).any(|at| {
        let key = text.get(at + PREFIX.len()..).unwrap_or_default();
        key.get(..KEY_CHARACTERS).is_some_and(|start| start.iter().all(u8::is_ascii_alphanumeric))
    })
}

/// Returns whether the byte is unreserved (RFC 3986 §2.3). Secrets consist of such bytes, and no delimiter of a target is one.
fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}
