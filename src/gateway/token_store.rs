//! Makes the token store that a configuration describes.

use std::sync::Arc;

use crate::config::token_store::{Location, TokenStoreConfig};
use crate::vault::{Backend, Postgres, Sqlite, Vault};

/// Makes the store of a configuration, without opening it: a store that is not reached now may be later.
///
/// # Errors
/// What in the configuration cannot be used.
pub fn token_store(config: &TokenStoreConfig) -> Result<Vault, String> {
    let store: Arc<dyn Backend> = match &config.location {
        Location::File(path) => Arc::new(Sqlite::new(path)),
        Location::Postgres { url, ca_file } => Arc::new(Postgres::new(url, ca_file.as_deref())?),
    };
    Ok(Vault::new(store, config.keys.clone()))
}

/// Checks what would keep `serve` from using the store, as far as that shows without opening it.
///
/// # Errors
/// The obstacle, in words.
pub fn check_token_store(config: &TokenStoreConfig) -> Result<(), String> {
    match &config.location {
        Location::File(path) => Sqlite::new(path).check_place().map_err(|fault| format!("`token_store.path`: {fault}")),
        Location::Postgres { .. } => Ok(()),
    }
}
