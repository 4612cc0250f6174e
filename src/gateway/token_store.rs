//! Opens the token store of a configuration.

use std::sync::Arc;

use crate::config::token_store::{Location, TokenStoreConfig};
use crate::vault::{Backend, Postgres, Sqlite, Vault};

/// Creates the client of the token store. It connects later, because the store may be unreachable now.
///
/// # Errors
/// The part of the configuration that cannot be used.
pub fn token_store(config: &TokenStoreConfig) -> Result<Vault, String> {
    let store: Arc<dyn Backend> = match &config.location {
        Location::File(path) => Arc::new(Sqlite::new(path)),
        Location::Postgres { url, ca_file } => Arc::new(Postgres::new(url, ca_file.as_deref())?),
    };
    Ok(Vault::new(store, config.keys.clone()))
}

/// Checks what would prevent `serve` from using the store, as far as possible without opening it.
///
/// # Errors
/// The obstacle.
pub fn check_token_store(config: &TokenStoreConfig) -> Result<(), String> {
    match &config.location {
        Location::File(path) => Sqlite::new(path).check_place().map_err(|fault| format!("`token_store.path`: {fault}")),
        Location::Postgres { .. } => Ok(()),
    }
}
