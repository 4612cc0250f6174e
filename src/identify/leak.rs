//! Secrets in the wrong place: a gateway key, or a secret of the configuration, that a client puts where it would be
//! forwarded and logged.
//!
//! Request targets stand in the logs of every proxy and of Cal.com. The check is made for every request, so that it looks
//! closely only at long words: a normal target has few of them, and a key is one.

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

/// Minimum length of a word that is looked at, and of a secret that is found: shorter ones are ordinary words, too.
const MIN_SECRET: usize = 16;

/// Characters after `calgate_` by which a text is a key rather than a name that begins so. A whole key has 48.
const KEY_CHARACTERS: usize = 24;

/// Times that a target is percent-decoded: a proxy on the way may encode what is encoded already.
const MAX_DECODING: usize = 3;

/// Finds secrets where they would be forwarded.
#[derive(Debug, Default)]
pub struct LeakGuard {
    /// Keyed hashes of the longest words of the configured secrets.
    secrets: HashSet<u64>,
    hasher: RandomState,
}

impl LeakGuard {
    /// A guard that knows nothing but the form of gateway keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a configured secret known.
    pub fn add(&mut self, secret: &[u8]) {
        let longest = secret.split(|b| !is_word(*b)).max_by_key(|word| word.len());
        if let Some(word) = longest.filter(|word| word.len() >= MIN_SECRET) {
            self.secrets.insert(self.hasher.hash_one(word));
        }
    }

    /// Checks a request's target, and those of its headers that are forwarded: the usual ones and `extra`.
    ///
    /// # Errors
    /// [`Refusal::Leak`].
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
        for _ in 0..MAX_DECODING {
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

/// Returns whether a text holds a gateway key, whole or with an end that is missing.
pub(crate) fn contains_gateway_key(text: &[u8]) -> bool {
    memmem::find_iter(text, PREFIX.as_bytes()).any(|at| {
        let key = text.get(at + PREFIX.len()..).unwrap_or_default();
        key.get(..KEY_CHARACTERS).is_some_and(|start| start.iter().all(u8::is_ascii_alphanumeric))
    })
}

/// Characters that secrets have and that separate nothing in a target (RFC 3986 §2.3, unreserved).
fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}
