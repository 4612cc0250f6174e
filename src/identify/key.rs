//! Gateway keys: `calgate_`, 40 hexadecimal digits of randomness (160 bits), 8 of CRC-32 over those before.
//!
//! The checksum lets garbage be refused without a look-up and lets secret scanners recognise a real key. Configs hold
//! only the SHA-256 of the whole key.

use std::fmt::{self, Write as _};

use aws_lc_rs::digest;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use super::AuthFailure;

/// What every gateway key begins with.
pub(super) const PREFIX: &str = "calgate_";

const RANDOM_BYTES: usize = 20;
const CHECKSUM_DIGITS: usize = 8;
const LENGTH: usize = PREFIX.len() + 2 * RANDOM_BYTES + CHECKSUM_DIGITS;

/// A gateway key that is whole: the form is right and the checksum agrees. Whether anyone knows it is another question.
pub struct GatewayKey<'a>(&'a str);

impl<'a> GatewayKey<'a> {
    /// Takes `text` if it has the form of a key.
    pub fn parse(text: &'a str) -> Option<Self> {
        Self::check(text).ok()
    }

    /// The same, with the reason where it has not.
    pub(super) fn check(text: &'a str) -> Result<Self, AuthFailure> {
        let digits = text.strip_prefix(PREFIX).ok_or(AuthFailure::Malformed)?;
        let all: &[u8; LENGTH - PREFIX.len()] = digits.as_bytes().try_into().map_err(|_| AuthFailure::Malformed)?;
        // All of them are looked at in any case: that is done many at a time.
        let lower_hex = |b: u8| b.is_ascii_digit() | (b'a'..=b'f').contains(&b);
        if !all.iter().fold(true, |so_far, b| so_far & lower_hex(*b)) {
            return Err(AuthFailure::Malformed);
        }
        let (random, checksum) = digits.split_at_checked(2 * RANDOM_BYTES).ok_or(AuthFailure::Malformed)?;
        let is_right = u32::from_str_radix(checksum, 16) == Ok(crc32fast::hash(random.as_bytes()));
        is_right.then_some(Self(text)).ok_or(AuthFailure::Checksum)
    }

    /// Makes a new key from the operating system's random source.
    ///
    /// # Errors
    /// If that source fails.
    pub fn generate() -> Result<String, &'static str> {
        let mut random = [0; RANDOM_BYTES];
        SystemRandom::new().fill(&mut random).map_err(|_| "the operating system gave no randomness")?;
        let digits = hex(&random);
        let checksum = crc32fast::hash(digits.as_bytes());
        Ok(format!("{PREFIX}{digits}{checksum:08x}"))
    }

    /// Its SHA-256, as a config has it.
    pub fn hash(&self) -> KeyHash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, self.0.as_bytes()).as_ref());
        KeyHash(hash)
    }
}

/// The SHA-256 of a gateway key, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

// Equality is derived over the same bytes.
impl std::hash::Hash for KeyHash {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl KeyHash {
    /// Reads the form that a config has.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:")?;
        if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(hash))
    }

    /// Its beginning, which is enough to find the line in a configuration.
    pub(super) fn start(&self) -> String {
        let start = self.0.first_chunk::<6>().map_or_else(String::new, |start| hex(start));
        format!("sha256:{start}…")
    }

    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex(&self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
