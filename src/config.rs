//! Reads the configuration, a TOML file or a few environment variables, into one checked value.
//!
//! Each section has a file of its own with its type, defaults and checks. One pass reports all mistakes. A configuration with a
//! mistake is rejected as a whole. `config/calgate.toml` documents every key.

pub mod anonymous;
pub mod budget;
pub mod catalog;
pub mod consumers;
mod cors_origin;
pub mod credentials;
pub mod diagnostics;
pub mod environment;
pub mod file_digest;
pub mod limit_store;
pub mod limits;
pub mod listen;
pub mod log;
pub mod passthrough;
pub mod plans;
pub mod proxy;
mod recovery;
mod redact;
mod renamed;
mod secret_source;
pub mod section;
pub mod startup;
pub mod tiers;
pub mod token_store;
pub mod upstream;
mod warnings;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::de::DeTable;

use crate::catalog::Catalog;
use crate::entitle::EntitlementMode;
use crate::memory;
use diagnostics::{ConfigError, Diagnostic, Diagnostics};
use file_digest::FileDigest;
use limit_store::LimitStoreConfig;
use redact::redact;
use section::Section;

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// `[listen]`
    pub listen: listen::Listen,
    /// `[upstream]`
    pub upstream: upstream::Upstream,
    /// `[catalog]`
    pub catalog: catalog::CatalogConfig,
    /// `[limits]`
    pub limits: limits::Bounds,
    /// `[tiers.NAME]`
    pub tiers: BTreeMap<String, tiers::TierConfig>,
    /// `[budget]`
    pub budget: budget::BudgetConfig,
    /// `[plans.NAME]`
    pub plans: BTreeMap<String, plans::PlanLists>,
    /// `[entitlements] mode`
    pub entitlements: EntitlementMode,
    /// `[token_store]`
    pub token_store: Option<token_store::TokenStoreConfig>,
    /// `[limit_store]`
    pub limit_store: Option<LimitStoreConfig>,
    /// `[credentials.NAME]`
    pub credentials: BTreeMap<String, credentials::CredentialConfig>,
    /// `[consumers.NAME]`
    pub consumers: Vec<consumers::ConsumerConfig>,
    /// `[anonymous]`
    pub anonymous: anonymous::Anonymous,
    /// `[passthrough]`
    pub passthrough: Option<passthrough::PassthroughConfig>,
    /// `[log]`
    pub log: log::Log,
    /// Probable mistakes, each as `file:line:column: message`.
    pub warnings: Vec<String>,
}

/// Source of the secrets of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// The files and environment variables that the configuration names.
    Read,
    /// Placeholders. A machine that lacks the secrets can check the rest of the configuration.
    Placeholders,
}

impl Config {
    /// Adapts the credentials to whether the gateway was started with a token store, whatever `[token_store]` says now.
    ///
    /// # Errors
    /// A credential needs the token store that the gateway does not have.
    pub fn with_token_store(mut self, has_store: bool) -> Result<Self, String> {
        credentials::require_store(&mut self.credentials, has_store)?;
        Ok(self)
    }

    /// Reads a configuration file. Reads it only once, because it may be a pipe, and so returns the digest of its contents, too.
    ///
    /// # Errors
    /// All mistakes in the file.
    pub fn from_file(path: &Path, secrets: Secrets) -> Result<(Self, FileDigest), Box<ConfigError>> {
        // The catalog outlives the scratch heap, so it is built before.
        Catalog::built_in();
        memory::on_scratch_heap(|| {
            let origin = path.display().to_string();
            let error = |message: String| {
                let diagnostics = vec![Diagnostic { span: 0..0, message, help: None }];
                Err(Box::new(ConfigError { origin: origin.clone(), text: String::new(), diagnostics, unreported: 0 }))
            };
            match std::fs::read_to_string(path) {
                // An empty file is one that is being written, or that found no space on the disk. Its defaults would refuse every
                // request.
                Ok(text) if text.trim().is_empty() => error("the configuration file is empty".to_owned()),
                Ok(text) => {
                    let diagnostics = match secrets {
                        Secrets::Read => Diagnostics::default(),
                        Secrets::Placeholders => Diagnostics::with_placeholders(),
                    };
                    Ok((Self::read_text(&origin, &text, &diagnostics)?, FileDigest::of(text.as_bytes())))
                }
                Err(fault) => error(format!("the configuration file cannot be read: {fault}")),
            }
        })
    }

    /// Parses the text of a configuration. `origin` is its name in errors.
    ///
    /// # Errors
    /// All mistakes in the text.
    pub fn parse(origin: &str, text: &str) -> Result<Self, Box<ConfigError>> {
        Self::read_text(origin, text, &Diagnostics::default())
    }

    /// Parses a text that calgate generated. Messages show its comments, which explain it.
    fn parse_generated(origin: &str, text: &str) -> Result<Self, Box<ConfigError>> {
        Self::read_text(origin, text, &Diagnostics::with_comments())
    }

    fn read_text(origin: &str, text: &str, diagnostics: &Diagnostics) -> Result<Self, Box<ConfigError>> {
        let (document, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            let mut config = Self::read_document(document.get_ref(), diagnostics);
            if diagnostics.is_empty() {
                warnings::add(&Section::new("", document.get_ref(), 0..0, diagnostics), &config);
                config.warnings = diagnostics.warnings(origin, text);
                return Ok(config);
            }
        }
        drop(document);
        // The second pass notes what messages may show. A valid configuration does without the memory for that.
        diagnostics.start_second_pass();
        let rest = if errors.is_empty() {
            Cow::Borrowed(text)
        } else {
            Cow::Owned(recovery::blank_invalid_statements(text, diagnostics))
        };
        let (document, _) = DeTable::parse_recoverable(&rest);
        drop(Self::read_document(document.get_ref(), diagnostics));
        redact(&rest, document.get_ref(), diagnostics);
        Err(Box::new(ConfigError::new(origin, text, diagnostics)))
    }

    fn read_document<'a>(document: &'a DeTable<'a>, diagnostics: &'a Diagnostics) -> Self {
        let root = Section::new("", document, 0..0, diagnostics);
        let config = Self::read(&root);
        root.reject_unknown();
        config
    }

    /// Returns every key that parsing `text` looks for. The documentation has to name all of them.
    pub fn keys_looked_for(text: &str) -> BTreeSet<String> {
        let diagnostics = Diagnostics::with_keys();
        let (document, _) = DeTable::parse_recoverable(text);
        drop(Self::read_document(document.get_ref(), &diagnostics));
        drop(document);
        diagnostics.into_keys()
    }

    /// Returns the names of the keys that hold a secret in no section, among those that parsing `text` looks for.
    fn plain_keys(text: &str) -> BTreeSet<String> {
        let diagnostics = Diagnostics::with_keys();
        let (document, _) = DeTable::parse_recoverable(text);
        drop(Self::read_document(document.get_ref(), &diagnostics));
        diagnostics.plain_keys()
    }

    fn read(root: &Section<'_>) -> Self {
        let listen = read_section(root, "listen", listen::Listen::read);
        let upstream = read_section(root, "upstream", |section| upstream::Upstream::read(section, &listen));
        let catalog = read_section(root, "catalog", catalog::CatalogConfig::read);
        let known = catalog.custom.as_ref().unwrap_or_else(|| Catalog::built_in());
        let plans = with_section(root, "plans", |section| plans::read(section, known));
        let tiers = with_section(root, "tiers", tiers::read);
        let token_store = optional_section(root, "token_store", token_store::TokenStoreConfig::read);
        // The old section is an error of its own. Credentials that need a store are not reported in addition.
        let has_store = root.contains("token_store") || root.contains(renamed::OLD_SECTION);
        let credentials = with_section(root, "credentials", |section| credentials::read(section, &plans, has_store));
        let references = consumers::References { catalog: known, tiers: &tiers, credentials: &credentials };
        let consumers = with_section(root, "consumers", |section| consumers::read(section, &references));
        Self {
            listen,
            upstream,
            budget: read_section(root, "budget", budget::BudgetConfig::read),
            limits: read_section(root, "limits", limits::Bounds::read),
            entitlements: read_section(root, "entitlements", plans::read_mode),
            anonymous: read_section(root, "anonymous", |section| anonymous::Anonymous::read(section, consumers.keys())),
            passthrough: read_section(root, "passthrough", |section| {
                passthrough::PassthroughConfig::read(section, &plans, &tiers)
            }),
            log: read_section(root, "log", log::Log::read),
            credentials: credentials.into_iter().filter_map(|(name, read)| Some((name, read?))).collect(),
            catalog,
            plans,
            tiers,
            token_store,
            limit_store: optional_section(root, "limit_store", LimitStoreConfig::read),
            consumers: consumers.into_values().flatten().collect(),
            warnings: Vec::new(),
        }
    }
}

/// Reads a section of fixed keys. An absent section reads as an empty one and so gives the defaults.
fn read_section<T>(root: &Section<'_>, key: &'static str, read: impl FnOnce(&Section<'_>) -> T) -> T {
    let Some(section) = root.section(key) else {
        let (empty, ignored) = (DeTable::new(), Diagnostics::default());
        return read(&Section::new(key, &empty, 0..0, &ignored));
    };
    let value = read(&section);
    section.reject_unknown();
    value
}

/// Reads a section of fixed keys that has no defaults. An absent section gives no value.
fn optional_section<T>(
    root: &Section<'_>,
    key: &'static str,
    read: impl FnOnce(&Section<'_>) -> Option<T>,
) -> Option<T> {
    let section = root.section(key)?;
    let value = read(&section);
    section.reject_unknown();
    value
}

/// Reads a section whose keys are names chosen by the operator.
fn with_section<T>(root: &Section<'_>, key: &'static str, read: impl FnOnce(Option<&Section<'_>>) -> T) -> T {
    read(root.section(key).as_ref())
}
