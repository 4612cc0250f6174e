//! The token store: the contract of all backends, and the behaviour of each one.

mod contract;
mod postgres;
mod sealed;
mod sqlite;
mod volumes;

use std::path::Path;

use calgate::vault::{SealKey, SealKeys, SealedRecord, Sqlite};

/// Runs an operation to its end.
fn now<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn row(version: u64, sealed: &[u8]) -> SealedRecord {
    SealedRecord { version, key_id: "0a0b0c0d".to_owned(), sealed: sealed.to_vec() }
}

fn keys(texts: &[&str]) -> SealKeys {
    SealKeys::new(texts.iter().map(|text| SealKey::parse(text).unwrap()).collect()).unwrap()
}

/// Creates a backend in `folder`.
fn sqlite_in(folder: &Path) -> Sqlite {
    Sqlite::new(&folder.join("store/tokens.db"))
}
