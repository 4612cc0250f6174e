//! Gateway keys: `calgate_`, 40 hexadecimal digits of randomness (160 bits), 8 of CRC-32 over those before.
//!
//! The checksum lets garbage be refused without a look-up and lets secret scanners recognise a real key. Configs hold
//! only the SHA-256 of the whole key.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use crate::refusal::AuthFailure;
use crate::secret::KeyHash;

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
        let digits = hex::encode(random);
        let checksum = crc32fast::hash(digits.as_bytes());
        Ok(format!("{PREFIX}{digits}{checksum:08x}"))
    }

    /// Its SHA-256, as a config has it.
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(self.0)
    }
}
