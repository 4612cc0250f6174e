//! `[token_store]`: the storage of renewable credentials, and the keys that seal them.

use std::path::PathBuf;

use super::file_digest::CaFile;
use super::secret_source;
use super::section::Section;
use crate::secret::Secret;
use crate::vault::{Postgres, SealKey, SealKeys};

/// Settings of `[token_store]`.
#[derive(Debug, Clone)]
pub struct TokenStoreConfig {
    /// File or database.
    pub location: Location,
    /// Keys that seal the records.
    pub keys: SealKeys,
}

/// Location of a token store.
#[derive(Debug, Clone)]
pub enum Location {
    /// SQLite file on this machine.
    File(PathBuf),
    /// PostgreSQL database.
    Postgres {
        /// Connection URL. It holds a password.
        url: Secret,
        /// PEM file of the only certificate authorities to trust, instead of the public ones.
        ca_file: Option<PathBuf>,
    },
}

/// Comparable form of the settings without a secret. A reload reports a difference, because it needs a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenStoreIdentity(String, Option<CaFile>, Vec<String>);

impl TokenStoreConfig {
    /// Returns the comparable form.
    pub fn identity(&self) -> TokenStoreIdentity {
        let (location, ca_file) = match &self.location {
            Location::File(path) => (path.display().to_string(), None),
            Location::Postgres { url, ca_file } => (url.fingerprint(), CaFile::read(ca_file.as_deref())),
        };
        TokenStoreIdentity(location, ca_file, self.keys.ids().map(str::to_owned).collect())
    }

    /// Reads the section.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let location = Self::read_location(section);
        let keys = read_keys(section);
        location.zip(keys).map(|(location, keys)| Self { location, keys })
    }

    fn read_location(section: &Section<'_>) -> Option<Location> {
        let path = section.string("path");
        let ca_file = section.ca_file("ca_file").map(|path| path.value);
        match (path, section.raw("postgres").is_some()) {
            (Some(path), false) if path.value.is_empty() => {
                section.error(path.span, "`token_store.path` is empty", None);
                None
            }
            (Some(path), false) => Some(Location::File(PathBuf::from(path.value))),
            (None, true) => read_postgres(section).map(|url| Location::Postgres { url, ca_file }),
            (Some(path), true) => {
                let help = "remove one of `path` and `postgres`".to_owned();
                section.error(path.span, "a token store is either a file or a PostgreSQL database", help);
                None
            }
            (None, false) => {
                if section.raw("path").is_none() {
                    section.missing(
                        "path",
                        "a file such as \"/var/lib/calgate/tokens.db\", or postgres = { env = \"…\" }",
                    );
                }
                None
            }
        }
    }
}

fn read_postgres(section: &Section<'_>) -> Option<Secret> {
    let url = secret_source::read(section, "postgres")?;
    if let (Err(fault), Some((_, span))) = (Postgres::check(&url), section.raw("postgres")) {
        section.error(span, format!("`token_store.postgres` cannot be used: {fault}"), None);
    }
    Some(url)
}

fn read_keys(section: &Section<'_>) -> Option<SealKeys> {
    let help = "a list such as [{ env = \"CALGATE_SEAL_KEY\" }]; generate a key with `openssl rand -base64 32`";
    let key = |value: &_, span: std::ops::Range<usize>| {
        let text = secret_source::read_value(section, "seal_keys", value, span.clone())?;
        match text.expose(SealKey::parse) {
            Ok(key) => Some(key),
            Err(fault) => {
                section.error(span, format!("a key in `token_store.seal_keys` cannot be used: {fault}"), None);
                None
            }
        }
    };
    let Some(keys) = section.list("seal_keys", key) else {
        if section.raw("seal_keys").is_none() {
            section.missing("seal_keys", help);
        }
        return None;
    };
    let read = SealKeys::new(keys.value);
    if read.is_none() && section.raw("seal_keys").and_then(|(value, _)| value.as_array()).is_some_and(|a| a.is_empty())
    {
        section.error(keys.span, "`token_store.seal_keys` needs at least one key", help.to_owned());
    }
    read
}
