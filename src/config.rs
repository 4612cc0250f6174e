//! The configuration: a TOML file (or a few environment variables) read into one checked value.
//!
//! Each section has a file of its own with its type, defaults and checks. All mistakes are found in one reading;
//! nothing of a configuration with a mistake is used. `config/calgate.toml` documents every key.

mod broken;
pub mod budget;
pub mod callers;
pub mod catalog;
pub mod consumers;
pub mod contents;
pub mod credentials;
pub mod environment;
pub mod fixed;
mod hiding;
pub mod limits;
pub mod listen;
pub mod log;
mod origin;
pub mod plans;
pub mod problem;
pub mod proxy;
pub mod reader;
mod renamed;
mod secret;
pub mod sharing;
pub mod store;
pub mod tiers;
pub mod upstream;
mod warnings;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::de::DeTable;

use crate::catalog::Catalog;
use crate::entitle::Mode;
use crate::memory;
use contents::Contents;
use hiding::hide_unshown;
use problem::{Problems, Unusable};
use reader::Section;

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
    pub entitlements: Mode,
    /// `[token_store]`
    pub store: Option<store::StoreConfig>,
    /// `[credentials.NAME]`
    pub credentials: BTreeMap<String, credentials::CredentialConfig>,
    /// `[consumers.NAME]`
    pub consumers: Vec<consumers::ConsumerConfig>,
    /// `[anonymous]`
    pub anonymous: callers::Anonymous,
    /// `[passthrough]`
    pub passthrough: Option<callers::PassthroughConfig>,
    /// `[limit_store]`
    pub sharing: Option<sharing::SharingConfig>,
    /// `[log]`
    pub log: log::Log,
    /// What is probably a mistake, each as `file:line:column: message`.
    pub warnings: Vec<String>,
}

/// Where the secrets of a configuration come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// The files and variables that it names.
    Read,
    /// Nowhere: placeholders stand for them, so that a machine without them can check the rest.
    Placeholders,
}

impl Config {
    /// The same, for a gateway that was started with a store of tokens or without one.
    ///
    /// # Errors
    /// Where that cannot be: a credential needs a store.
    pub fn with_store(mut self, is_there: bool) -> Result<Self, String> {
        credentials::go_by_store(&mut self.credentials, is_there)?;
        Ok(self)
    }

    /// Reads a configuration file, once, as it may be a pipe. Answers what it holds, too.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn from_file(path: &Path, secrets: Secrets) -> Result<(Self, Contents), Box<Unusable>> {
        Catalog::built_in(); // which lives on, and so is not made among what is soon gone
        memory::apart(|| {
            let origin = path.display().to_string();
            let unusable = |message: String| {
                let problems = vec![problem::Problem { span: 0..0, message, help: None }];
                Err(Box::new(Unusable { origin: origin.clone(), text: String::new(), problems, unreported: 0 }))
            };
            match std::fs::read_to_string(path) {
                // It is being written, or there was no room on the disk for it: no wish to refuse everybody.
                Ok(text) if text.trim().is_empty() => unusable("the configuration file is empty".to_owned()),
                Ok(text) => {
                    let problems = match secrets {
                        Secrets::Read => Problems::default(),
                        Secrets::Placeholders => Problems::with_placeholders(),
                    };
                    Ok((Self::read_text(&origin, &text, &problems)?, Contents::of(text.as_bytes())))
                }
                Err(fault) => unusable(format!("the configuration file cannot be read: {fault}")),
            }
        })
    }

    /// Reads the text of a configuration. `origin` names it in errors.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(origin: &str, text: &str) -> Result<Self, Box<Unusable>> {
        Self::read_text(origin, text, &Problems::default())
    }

    /// The same for a text of our own, whose comments help.
    fn parse_own(origin: &str, text: &str) -> Result<Self, Box<Unusable>> {
        Self::read_text(origin, text, &Problems::with_comments())
    }

    fn read_text(origin: &str, text: &str, problems: &Problems) -> Result<Self, Box<Unusable>> {
        let (document, faults) = DeTable::parse_recoverable(text);
        if faults.is_empty() {
            let mut config = Self::read_document(document.get_ref(), problems);
            if problems.is_empty() {
                warnings::note(&Section::new("", document.get_ref(), 0..0, problems), &config);
                config.warnings = problems.warnings(origin, text);
                return Ok(config);
            }
        }
        drop(document);
        // Once more, for messages: what they may show takes memory that a good configuration does without.
        problems.begin_again();
        let rest = if faults.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(broken::put_aside(text, problems)) };
        let (document, _) = DeTable::parse_recoverable(&rest);
        drop(Self::read_document(document.get_ref(), problems));
        hide_unshown(&rest, document.get_ref(), problems);
        Err(Box::new(Unusable::new(origin, text, problems)))
    }

    fn read_document<'a>(document: &'a DeTable<'a>, problems: &'a Problems) -> Self {
        let root = Section::new("", document, 0..0, problems);
        let config = Self::read(&root);
        root.finish();
        config
    }

    /// Every key that reading `text` looks for: what documentation has to name.
    pub fn keys_looked_for(text: &str) -> BTreeSet<String> {
        let problems = Problems::with_keys();
        let (document, _) = DeTable::parse_recoverable(text);
        drop(Self::read_document(document.get_ref(), &problems));
        drop(document);
        problems.into_keys()
    }

    /// Names of the keys that hold no secret wherever they stand, among those that reading `text` looks for.
    fn plain_keys(text: &str) -> BTreeSet<String> {
        let problems = Problems::with_keys();
        let (document, _) = DeTable::parse_recoverable(text);
        drop(Self::read_document(document.get_ref(), &problems));
        problems.plain_keys()
    }

    fn read(root: &Section<'_>) -> Self {
        let listen = read_section(root, "listen", listen::Listen::read);
        let upstream = read_section(root, "upstream", |section| upstream::Upstream::read(section, &listen));
        let catalog = read_section(root, "catalog", catalog::CatalogConfig::read);
        let known = catalog.own.as_ref().unwrap_or_else(|| Catalog::built_in());
        let plans = with_section(root, "plans", |section| plans::read(section, known));
        let tiers = with_section(root, "tiers", tiers::read);
        let store = optional_section(root, "token_store", store::StoreConfig::read);
        // The old section is a mistake of its own. Credentials that need a store are not reported beside it.
        let has_store = root.contains("token_store") || root.contains(renamed::OLD_SECTION);
        let credentials = with_section(root, "credentials", |section| credentials::read(section, &plans, has_store));
        let names = consumers::Known { catalog: known, tiers: &tiers, credentials: &credentials };
        let consumers = with_section(root, "consumers", |section| consumers::read(section, &names));
        Self {
            listen,
            upstream,
            budget: read_section(root, "budget", budget::BudgetConfig::read),
            limits: read_section(root, "limits", limits::Bounds::read),
            entitlements: read_section(root, "entitlements", plans::read_mode),
            anonymous: read_section(root, "anonymous", |section| callers::Anonymous::read(section, consumers.keys())),
            passthrough: read_section(root, "passthrough", |section| {
                callers::PassthroughConfig::read(section, &plans, &tiers)
            }),
            log: read_section(root, "log", log::Log::read),
            credentials: credentials.into_iter().filter_map(|(name, read)| Some((name, read?))).collect(),
            catalog,
            plans,
            tiers,
            store,
            sharing: optional_section(root, "limit_store", sharing::read),
            consumers: consumers.into_values().flatten().collect(),
            warnings: Vec::new(),
        }
    }
}

/// Reads a section of fixed keys; one that is not there reads as empty, which is how defaults come about.
fn read_section<T>(root: &Section<'_>, key: &'static str, read: impl FnOnce(&Section<'_>) -> T) -> T {
    let Some(section) = root.section(key) else {
        let (nothing, unheard) = (DeTable::new(), Problems::default());
        return read(&Section::new(key, &nothing, 0..0, &unheard));
    };
    let value = read(&section);
    section.finish();
    value
}

/// Reads a section of fixed keys that has no defaults: without it there is no value.
fn optional_section<T>(
    root: &Section<'_>,
    key: &'static str,
    read: impl FnOnce(&Section<'_>) -> Option<T>,
) -> Option<T> {
    let section = root.section(key)?;
    let value = read(&section);
    section.finish();
    value
}

/// Reads a section whose keys are names that the operator chose.
fn with_section<T>(root: &Section<'_>, key: &'static str, read: impl FnOnce(Option<&Section<'_>>) -> T) -> T {
    read(root.section(key).as_ref())
}
