//! Interface of a storage backend: named sealed records, and locks that all replicas share.

use std::fmt;

use futures_util::future::BoxFuture;

/// Future of an operation.
pub type BackendFuture<'a, T> = BoxFuture<'a, Result<T, VaultError>>;

/// Storage backend of the token store.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Returns the record of that name, if there is one.
    fn get<'a>(&'a self, name: &'a str) -> BackendFuture<'a, Option<SealedRecord>>;

    /// Replaces the record with version `expected` by `record`. If `expected` is `None`, creates the record. If `record` is
    /// `None`, removes it. After `true` the change is durable. Returns `false` if the record has another version.
    fn compare_and_swap<'a>(
        &'a self,
        name: &'a str,
        expected: Option<u64>,
        record: Option<&'a SealedRecord>,
    ) -> BackendFuture<'a, bool>;

    /// Acquires the lock of that name, which all replicas share. Returns `None` if it is not free. The lock is tied to the
    /// process of its holder and has no lease time, so it is released when that process is killed.
    fn lock<'a>(&'a self, name: &'a str) -> BackendFuture<'a, Option<Lock>>;

    /// Returns the names of all records in alphabetical order.
    fn names(&self) -> BackendFuture<'_, Vec<String>>;
}

/// Record as a backend stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRecord {
    /// Number of changes of the record, from 1.
    pub version: u64,
    /// Identifier of the key that sealed it.
    pub key_id: String,
    /// Nonce, ciphertext and authentication tag.
    pub sealed: Vec<u8>,
}

/// Lock, held until this is dropped.
pub struct Lock {
    /// Fencing token: larger than that of any earlier lock in this store. A record that an earlier holder left shows it.
    pub fence: u64,
    release: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Lock {
    pub(in crate::vault) fn new(fence: u64, release: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self { fence, release: Some(Box::new(release)) }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            release();
        }
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("fence", &self.fence).finish_non_exhaustive()
    }
}

/// Error of the token store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultError {
    /// The store is unreachable, full, read-only or invalid, for this reason.
    Unusable(String),
    /// One record cannot be opened. It is unchanged.
    Damaged {
        /// Name of the record.
        name: String,
        /// Reason and remedy.
        why: String,
    },
}

impl VaultError {
    pub(in crate::vault) fn unusable(fault: impl fmt::Display) -> Self {
        Self::Unusable(fault.to_string())
    }
}

impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(why) => write!(f, "the token store cannot be used: {why}"),
            Self::Damaged { name, why } => write!(f, "the stored record of `{name}` cannot be used: {why}"),
        }
    }
}

impl std::error::Error for VaultError {}
