//! Encryption of records: AES-256-GCM, bound to the record's name, key and version.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::zeroize::Zeroizing;

use crate::secret::hash_prefix;

/// Length of a seal key in bytes.
const KEY_BYTES: usize = 32;

/// Key that seals records.
#[derive(Debug, Clone)]
pub struct SealKey {
    /// Prefix of a hash of the key. It identifies the key in a record.
    pub id: String,
    key: Arc<LessSafeKey>,
}

impl SealKey {
    /// Reads a key: 32 bytes in Base64.
    ///
    /// # Errors
    /// Reason why the text is not a key. It does not show the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let bytes = STANDARD.decode(text.trim()).map(Zeroizing::new).map_err(|_| "it is not base64")?;
        if bytes.len() != KEY_BYTES {
            return Err("it does not have 32 bytes; `openssl rand -base64 32` makes one");
        }
        let mut marked = Zeroizing::new(b"calgate seal key id".to_vec());
        marked.extend_from_slice(&bytes);
        let id = hash_prefix(&marked, 4);
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| "it is not an AES-256 key")?;
        Ok(Self { id, key: Arc::new(LessSafeKey::new(key)) })
    }
}

/// Seal keys of a configuration. The first one seals records, and each can open its own.
#[derive(Debug, Clone)]
pub struct SealKeys(Vec<SealKey>);

/// Reason why a record cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenFault {
    /// None of the keys sealed it.
    UnknownKey,
    /// Name, version or content differ from what was sealed.
    Forged,
}

impl SealKeys {
    /// Creates the keys. Returns `None` without a key.
    pub fn new(keys: Vec<SealKey>) -> Option<Self> {
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// Returns the identifier of the key that seals.
    pub fn writing(&self) -> &str {
        self.0.first().map_or("", |key| &key.id)
    }

    /// Returns the identifiers of all keys.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| &*key.id)
    }

    /// Seals `plain` as version `version` of `name`. Returns `None` if the random source or the cipher fails.
    pub(super) fn seal(&self, name: &str, version: u64, plain: &[u8]) -> Option<(String, Vec<u8>)> {
        let key = self.0.first()?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = nonce.to_vec();
        let mut inside = plain.to_vec();
        let bound = Aad::from(associated(name, &key.id, version));
        key.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut inside).ok()?;
        sealed.append(&mut inside);
        Some((key.id.clone(), sealed))
    }

    /// Opens a record.
    pub(super) fn open(
        &self,
        name: &str,
        key_id: &str,
        version: u64,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenFault> {
        let key = self.0.iter().find(|key| key.id == key_id).ok_or(OpenFault::UnknownKey)?;
        let (nonce, inside) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(OpenFault::Forged)?;
        let mut inside = Zeroizing::new(inside.to_vec());
        let bound = Aad::from(associated(name, key_id, version));
        let opened = key.key.open_in_place(Nonce::assume_unique_for_key(*nonce), bound, &mut inside);
        let length = opened.map_err(|_| OpenFault::Forged)?.len();
        inside.truncate(length);
        Ok(inside)
    }
}

/// Returns the associated data of a record. Names have no zero byte, so the data of two records always differ.
fn associated(name: &str, key_id: &str, version: u64) -> Vec<u8> {
    format!("calgate\0{name}\0{key_id}\0{version}").into_bytes()
}
