//! Interface of a storage backend: sealed records under names, and locks that all replicas share.

use std::fmt;

use futures_util::future::BoxFuture;

/// Future of an operation of a store.
pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreFault>>;

/// A place where sealed records are kept under names.
pub trait Store: fmt::Debug + Send + Sync {
    /// The record of that name, if there is one.
    fn get<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<Row>>;

    /// Puts `row` in the place of the record whose version is `expected` (`None`: no record), or removes that record
    /// if there is no `row`. Once this answers `true`, the change outlives a crash; `false`: the record is another one.
    fn compare_and_swap<'a>(
        &'a self,
        name: &'a str,
        expected: Option<u64>,
        row: Option<&'a Row>,
    ) -> StoreFuture<'a, bool>;

    /// Takes the lock of that name among all replicas; `None` if it is not free now. It ends with its holder: no
    /// clock is asked, and a holder that was killed holds nothing.
    fn lock<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<Lock>>;

    /// The names of all records, in order.
    fn names(&self) -> StoreFuture<'_, Vec<String>>;
}

/// A record as a store sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Counts the record's changes, from 1.
    pub version: u64,
    /// Which key it is sealed with.
    pub key_id: String,
    /// Nonce, ciphertext and tag.
    pub sealed: Vec<u8>,
}

/// A lock that is held until this is dropped.
pub struct Lock {
    /// Larger than that of any earlier holder of any lock in this store, so that what an earlier one left can be told.
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

/// Why a store could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreFault {
    /// The store as a whole: it is not reached, full, read-only, or no store at all.
    Unusable(String),
    /// One record, which is left as it is.
    Damaged {
        /// The record's name.
        name: String,
        /// What is wrong with it, and what to do.
        why: String,
    },
}

impl StoreFault {
    pub(in crate::vault) fn unusable(fault: impl fmt::Display) -> Self {
        Self::Unusable(fault.to_string())
    }
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(why) => write!(f, "the token store cannot be used: {why}"),
            Self::Damaged { name, why } => write!(f, "the stored record of `{name}` cannot be used: {why}"),
        }
    }
}

impl std::error::Error for StoreFault {}
