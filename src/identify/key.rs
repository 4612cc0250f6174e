//! Gateway keys: `calgate_`, then 40 random hexadecimal digits (160 bits), then their CRC-32 as 8 digits.
//!
//! The checksum lets calgate refuse a mistyped key without a lookup, and lets secret scanners recognise a real key. A
//! configuration holds only the SHA-256 of a key.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use crate::refusal::AuthFailure;
use crate::secret::KeyHash;

/// Start of every gateway key.
pub(super) const PREFIX: &str = "calgate_";

const RANDOM_BYTES: usize = 20;
const CHECKSUM_DIGITS: usize = 8;
const LENGTH: usize = PREFIX.len() + 2 * RANDOM_BYTES + CHECKSUM_DIGITS;

/// Well-formed gateway key with a correct checksum. It may belong to no consumer.
pub struct GatewayKey<'a>(&'a str);

impl<'a> GatewayKey<'a> {
    /// Parses a key.
    pub fn parse(text: &'a str) -> Option<Self> {
        Self::check(text).ok()
    }

    /// Parses a key, with the reason if it is invalid.
    pub(super) fn check(text: &'a str) -> Result<Self, AuthFailure> {
        let digits = text.strip_prefix(PREFIX).ok_or(AuthFailure::Malformed)?;
        let all: &[u8; LENGTH - PREFIX.len()] = digits.as_bytes().try_into().map_err(|_| AuthFailure::Malformed)?;
        // No early exit, because the compiler then checks many digits with one instruction.
        let lower_hex = |b: u8| b.is_ascii_digit() | (b'a'..=b'f').contains(&b);
        if !all.iter().fold(true, |so_far, b| so_far & lower_hex(*b)) {
            return Err(AuthFailure::Malformed);
        }
        let (random, checksum) = digits.split_at_checked(2 * RANDOM_BYTES).ok_or(AuthFailure::Malformed)?;
        let is_right = u32::from_str_radix(checksum, 16) == Ok(crc32fast::hash(random.as_bytes()));
        is_right.then_some(Self(text)).ok_or(AuthFailure::Checksum)
    }

    /// Generates a key with the random number generator of the operating system.
    ///
    /// # Errors
    /// The generator fails.
    pub fn generate() -> Result<String, &'static str> {
        let mut random = [0; RANDOM_BYTES];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| "the random number generator of the operating system failed")?;
        let digits = hex::encode(random);
        let checksum = crc32fast::hash(digits.as_bytes());
        Ok(format!("{PREFIX}{digits}{checksum:08x}"))
    }

    /// Returns the SHA-256 of the key, as a configuration lists it.
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(self.0)
    }
}
