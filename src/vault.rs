//! Token store: durable, sealed storage of renewable credentials, shared by all replicas.
//!
//! [`Vault`] seals records before a [`Store`] keeps them, and opens them. Only `refresh` and the commands that manage credentials use it,
//! never a request.

mod backend;
mod postgres;
mod seal;
mod sqlite;

use std::sync::Arc;

pub use backend::{Lock, Row, Store, StoreFault, StoreFuture};
pub use postgres::Postgres;
use seal::OpenFault;
pub use seal::{SealKey, SealKeys};
use secrecy::zeroize::Zeroizing;
pub use sqlite::Sqlite;

/// A store and the keys its records are sealed with.
#[derive(Debug, Clone)]
pub struct Vault {
    store: Arc<dyn Store>,
    keys: SealKeys,
}

/// A record that was opened.
pub struct Kept {
    /// Counts the record's changes.
    pub version: u64,
    /// Which key it is sealed with.
    pub key_id: String,
    /// What was sealed.
    pub plain: Zeroizing<Vec<u8>>,
}

/// What [`Vault::rekey`] came to.
#[derive(Debug, Default)]
pub struct Rekeyed {
    /// Records that are now sealed with the first key.
    pub resealed: usize,
    /// Records that were already.
    pub current: usize,
    /// Records that could not be opened, and were left as they are.
    pub failed: Vec<StoreFault>,
}

impl Vault {
    /// Seals what is in `store` with `keys`.
    pub fn new(store: Arc<dyn Store>, keys: SealKeys) -> Self {
        Self { store, keys }
    }

    /// The record of that name, opened.
    ///
    /// # Errors
    /// If the store cannot be used, or this record cannot be opened.
    pub async fn get(&self, name: &str) -> Result<Option<Kept>, StoreFault> {
        let Some(row) = self.store.get(name).await? else { return Ok(None) };
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
            StoreFault::Damaged { name: name.to_owned(), why }
        })?;
        Ok(Some(Kept { version: row.version, key_id: row.key_id, plain }))
    }

    /// Puts `plain` in the place of the record with version `expected`, durably. Answers whether it did: if not, the
    /// record is another one by now.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn swap(&self, name: &str, expected: Option<u64>, plain: &[u8]) -> Result<bool, StoreFault> {
        let version = expected.unwrap_or(0) + 1;
        let sealed = self.keys.seal(name, version, plain);
        let (key_id, sealed) = sealed.ok_or_else(|| StoreFault::unusable("sealing a record failed"))?;
        self.store.compare_and_swap(name, expected, Some(&Row { version, key_id, sealed })).await
    }

    /// Takes the lock of that name among all replicas, if it is free.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn lock(&self, name: &str) -> Result<Option<Lock>, StoreFault> {
        self.store.lock(name).await
    }

    /// The names of all records.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn names(&self) -> Result<Vec<String>, StoreFault> {
        self.store.names().await
    }

    /// Removes a record, opened or not. Answers whether there was one.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn forget(&self, name: &str) -> Result<bool, StoreFault> {
        while let Some(row) = self.store.get(name).await? {
            if self.store.compare_and_swap(name, Some(row.version), None).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Seals every record with the first key. A record that changes meanwhile is taken up again.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn rekey(&self) -> Result<Rekeyed, StoreFault> {
        let mut done = Rekeyed::default();
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
                    Err(fault @ StoreFault::Damaged { .. }) => {
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

/// A key id as it was read from the store, which may be damaged.
fn printable(id: &str) -> &str {
    if !id.is_empty() && id.len() <= 16 && id.bytes().all(|b| b.is_ascii_alphanumeric()) { id } else { "(unreadable)" }
}
