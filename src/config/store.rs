//! `[token_store]`: where renewable credentials are kept, and what they are sealed with.

use std::path::PathBuf;

use super::contents::Authority;
use super::reader::Section;
use super::secret;
use crate::secret::Secret;
use crate::store::{Postgres, SealKey, SealKeys};

/// A configured store.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Where it is.
    pub place: Place,
    /// What records are sealed with.
    pub keys: SealKeys,
}

/// Where a store is.
#[derive(Debug, Clone)]
pub enum Place {
    /// A SQLite file of this machine.
    File(PathBuf),
    /// A PostgreSQL database.
    Postgres {
        /// Its connection URL, which holds a password.
        address: Secret,
        /// The only certificate authority to trust, instead of the public ones.
        ca_file: Option<PathBuf>,
    },
}

/// What tells one store from another without a secret: a running gateway keeps to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity(String, Option<Authority>, Vec<String>);

impl StoreConfig {
    /// What tells it from another one.
    pub fn identity(&self) -> Identity {
        let (place, authority) = match &self.place {
            Place::File(path) => (path.display().to_string(), None),
            Place::Postgres { address, ca_file } => (address.fingerprint(), Authority::of(ca_file.as_deref())),
        };
        Identity(place, authority, self.keys.ids().map(str::to_owned).collect())
    }

    /// Reads the section.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let place = Self::read_place(section);
        let keys = read_keys(section);
        place.zip(keys).map(|(place, keys)| Self { place, keys })
    }

    fn read_place(section: &Section<'_>) -> Option<Place> {
        let path = section.string("path");
        let ca_file = section.ca_file("ca_file").map(|path| path.value);
        match (path, section.raw("postgres").is_some()) {
            (Some(path), false) if path.value.is_empty() => {
                section.wrong(path.span, "`token_store.path` names no file", None);
                None
            }
            (Some(path), false) => Some(Place::File(PathBuf::from(path.value))),
            (None, true) => read_postgres(section).map(|address| Place::Postgres { address, ca_file }),
            (Some(path), true) => {
                let help = "leave one of `path` and `postgres` out".to_owned();
                section.wrong(path.span, "a store is either a file or a PostgreSQL database", help);
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
    let address = secret::read(section, "postgres")?;
    if let (Err(fault), Some((_, span))) = (Postgres::check(&address), section.raw("postgres")) {
        section.wrong(span, format!("`token_store.postgres` cannot be used: {fault}"), None);
    }
    Some(address)
}

fn read_keys(section: &Section<'_>) -> Option<SealKeys> {
    let help = "a list such as [{ env = \"CALGATE_SEAL_KEY\" }]; `openssl rand -base64 32` makes a key";
    let key = |value: &_, span: std::ops::Range<usize>| {
        let text = secret::read_value(section, "seal_keys", value, span.clone())?;
        match text.with_text(SealKey::parse) {
            Ok(key) => Some(key),
            Err(fault) => {
                section.wrong(span, format!("a key in `token_store.seal_keys` cannot be used: {fault}"), None);
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
        section.wrong(keys.span, "`token_store.seal_keys` has to hold a key", help.to_owned());
    }
    read
}
