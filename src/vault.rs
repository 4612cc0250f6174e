//! Token store: durable, sealed storage of renewable credentials, shared by all replicas.
//!
//! [`Vault`] seals records before a [`Backend`] stores them, and opens them again. Only the module `refresh` and the commands
//! for credentials use it. Requests never do.

mod backend;
mod postgres;
mod seal;
mod sqlite;

use std::sync::Arc;

pub use backend::{Backend, BackendFuture, Lock, SealedRecord, VaultError};
pub use postgres::Postgres;
use seal::OpenFault;
pub use seal::{SealKey, SealKeys};
use secrecy::zeroize::Zeroizing;
pub use sqlite::Sqlite;

/// Token store: a backend, and the keys that seal its records.
#[derive(Debug, Clone)]
pub struct Vault {
    backend: Arc<dyn Backend>,
    keys: SealKeys,
}

/// Record after decryption.
pub struct OpenedRecord {
    /// Number of changes of the record, from 1.
    pub version: u64,
    /// Identifier of the key that sealed it.
    pub key_id: String,
    /// Decrypted content.
    pub plain: Zeroizing<Vec<u8>>,
}

/// Result of [`Vault::rekey`].
#[derive(Debug, Default)]
pub struct RekeyReport {
    /// Number of records that it sealed with the first key.
    pub resealed: usize,
    /// Number of records that the first key had sealed before.
    pub current: usize,
    /// Errors of the records that it could not open. Those are unchanged.
    pub failed: Vec<VaultError>,
}

impl Vault {
    /// Creates a token store in `backend`, sealed with `keys`.
    pub fn new(backend: Arc<dyn Backend>, keys: SealKeys) -> Self {
        Self { backend, keys }
    }

    /// Returns the record of that name.
    ///
    /// # Errors
    /// If the backend fails, or if the record cannot be opened.
    pub async fn get(&self, name: &str) -> Result<Option<OpenedRecord>, VaultError> {
        let Some(row) = self.backend.get(name).await? else { return Ok(None) };
        let plain = self.keys.open(name, &row.key_id, row.version, &row.sealed).map_err(|fault| {
            let why = match fault {
                OpenFault::UnknownKey => {
                    let known: Vec<_> = self.keys.ids().collect();
                    format!(
                        "it is sealed with the key {}, and token_store.seal_keys has only {}; add that key, or remove the record with \
                         `calgate credentials forget {name}`",
                        printable(&row.key_id),
                        known.join(", ")
                    )
                }
                OpenFault::Forged => format!(
                    "it is damaged, or not what was stored under this name; restore the store from a backup, or remove the record \
                     with `calgate credentials forget {name}`"
                ),
            };
            VaultError::Damaged { name: name.to_owned(), why }
        })?;
        Ok(Some(OpenedRecord { version: row.version, key_id: row.key_id, plain }))
    }

    /// Replaces the record with version `expected` by `plain`, durably. Returns false if the record has another version.
    ///
    /// # Errors
    /// If the backend fails.
    pub async fn swap(&self, name: &str, expected: Option<u64>, plain: &[u8]) -> Result<bool, VaultError> {
        let version = expected.unwrap_or(0) + 1;
        let sealed = self.keys.seal(name, version, plain);
        let (key_id, sealed) = sealed.ok_or_else(|| VaultError::unusable("sealing a record failed"))?;
        self.backend.compare_and_swap(name, expected, Some(&SealedRecord { version, key_id, sealed })).await
    }

    /// Acquires the lock of that name, which all replicas share. Returns `None` if it is not free.
    ///
    /// # Errors
    /// If the backend fails.
    pub async fn lock(&self, name: &str) -> Result<Option<Lock>, VaultError> {
        self.backend.lock(name).await
    }

    /// Returns the names of all records.
    ///
    /// # Errors
    /// If the backend fails.
    pub async fn names(&self) -> Result<Vec<String>, VaultError> {
        self.backend.names().await
    }

    /// Removes a record without opening it. Returns whether there was one.
    ///
    /// # Errors
    /// If the backend fails.
    pub async fn forget(&self, name: &str) -> Result<bool, VaultError> {
        while let Some(row) = self.backend.get(name).await? {
            if self.backend.compare_and_swap(name, Some(row.version), None).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Seals every record with the first key. If a record changes meanwhile, this starts again with it.
    ///
    /// # Errors
    /// If the backend fails.
    pub async fn rekey(&self) -> Result<RekeyReport, VaultError> {
        let mut done = RekeyReport::default();
        for name in self.names().await? {
            loop {
                match self.get(&name).await {
                    Ok(None) => break,
                    Ok(Some(kept)) if kept.key_id == self.keys.writing() => {
                        done.current += 1;
                        break;
                    }
                    Ok(Some(kept)) if self.swap(&name, Some(kept.version), &kept.plain).await? => {
                        done.resealed += 1;
                        break;
                    }
                    Ok(Some(_)) => {}
                    Err(fault @ VaultError::Damaged { .. }) => {
                        done.failed.push(fault);
                        break;
                    }
                    Err(fault) => return Err(fault),
                }
            }
        }
        Ok(done)
    }
}

/// Returns a key identifier from the store for a message. A damaged one is not shown.
fn printable(id: &str) -> &str {
    if !id.is_empty() && id.len() <= 16 && id.bytes().all(|b| b.is_ascii_alphanumeric()) { id } else { "(unreadable)" }
}
