//! `[consumers.NAME]`: the internal services, their keys, and what each is narrowed to.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::SystemTime;

use http::Method;
use toml::de::DeValue;

use super::credentials::CredentialConfig;
use super::plans::tag_rules;
use super::problem::known_names;
use super::reader::{Located, Section};
use super::tiers::{DEFAULT_TIER, TierConfig};
use crate::catalog::{Catalog, EndpointId};
use crate::credential::managed::UserId;
use crate::entitle::TagRule;
use crate::secret::KeyHash;

/// A configured consumer.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// Its name.
    pub name: Box<str>,
    /// Hashes of its keys, and when each expires.
    pub keys: Vec<(KeyHash, Option<SystemTime>)>,
    /// Its credential's name.
    pub credential: Box<str>,
    /// Its tier's name.
    pub tier: Box<str>,
    /// What it is narrowed to, if at all.
    pub narrowing: Option<Box<NarrowingLists>>,
    /// The credential operations it may call.
    pub credential_operations: Vec<EndpointId>,
    /// The managed users it may act for; `None`: all of its credential.
    pub managed_users: Option<Vec<UserId>>,
}

/// The lists that narrow a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarrowingLists {
    /// `tags`
    pub tags: Option<Vec<TagRule>>,
    /// `methods`
    pub methods: Option<Vec<Method>>,
    /// `endpoints`
    pub endpoints: Option<Vec<EndpointId>>,
}

/// What consumers refer to by name.
pub(super) struct Known<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) tiers: &'a BTreeMap<String, TierConfig>,
    pub(super) credentials: &'a BTreeMap<String, Option<CredentialConfig>>,
}

/// All consumers, in the order of their names. One that cannot be used is noted and has only its name.
pub(super) fn read(section: Option<&Section<'_>>, known: &Known<'_>) -> BTreeMap<String, Option<ConsumerConfig>> {
    let mut seen = HashMap::new();
    let mut consumers = BTreeMap::new();
    for (name, consumer) in section.map(Section::named_sections).unwrap_or_default() {
        consumers.insert(name.value.to_owned(), read_one(name.value, &consumer, known, &mut seen));
        consumer.finish();
    }
    consumers
}

fn read_one(
    name: &str,
    section: &Section<'_>,
    known: &Known<'_>,
    seen: &mut HashMap<KeyHash, String>,
) -> Option<ConsumerConfig> {
    let keys = section.list("keys", |value, span| read_key(section, value, span)).map(|list| list.value);
    let keys: Vec<_> = keys.unwrap_or_default();
    for (hash, _, span) in &keys {
        if let Some(other) = seen.insert(*hash, name.to_owned()) {
            section.wrong(span.clone(), format!("the key is listed for `consumers.{other}` already"), None);
        }
    }
    let narrowing = read_narrowing(section, known.catalog);
    let operations = read_credential_operations(section, known.catalog);
    let managed_users = read_managed_users(section);
    let tier = reference(section, "tier", known.tiers.keys(), Some(DEFAULT_TIER));
    let credential = reference(section, "credential", known.credentials.keys(), None);
    let (tier, credential) = tier.zip(credential)?;
    Some(ConsumerConfig {
        name: name.into(),
        keys: keys.into_iter().map(|(hash, expires, _)| (hash, expires)).collect(),
        credential,
        tier,
        narrowing: narrowing.map(Box::new),
        credential_operations: operations,
        managed_users,
    })
}

/// Reads a name that has to be one of `known`.
pub(super) fn reference<'k>(
    section: &Section<'_>,
    key: &'static str,
    known: impl Iterator<Item = &'k String> + Clone,
    default: Option<&str>,
) -> Option<Box<str>> {
    let Some(name) = section.string(key) else {
        if section.raw(key).is_some() {
            return None;
        }
        if default.is_none() {
            section.missing(key, &known_names("", known.map(String::as_str)));
        }
        return default.map(Into::into);
    };
    if known.clone().any(|k| k == name.value) {
        return Some(name.value.into());
    }
    section.wrong(
        name.span,
        format!("unknown {key} `{}`", name.value),
        known_names(name.value, known.map(String::as_str)),
    );
    None
}

type ReadKey = (KeyHash, Option<SystemTime>, Range<usize>);

fn read_key<'a>(section: &Section<'a>, value: &'a DeValue<'a>, span: Range<usize>) -> Option<ReadKey> {
    let (text, expires, span) = match value {
        DeValue::String(text) => (&**text, None, span),
        DeValue::Table(table) => {
            let key = section.inline("keys", table, span.clone());
            let hash = key.string("hash");
            if key.raw("hash").is_none() {
                key.missing("hash", "the sha256:… line that `calgate key new` prints");
            }
            let expires = key.moment("expires").and_then(|moment| SystemTime::try_from(moment).ok());
            key.finish();
            let hash = hash?;
            (hash.value, expires, hash.span)
        }
        _ => ("", None, span),
    };
    let hash = KeyHash::parse(text);
    if hash.is_none() {
        let fault =
            if text.starts_with("calgate_") { "this is a key itself, not its hash" } else { "this is no key hash" };
        let help = "write the sha256:… line that `calgate key new` prints".to_owned();
        section.hide(span.clone());
        section.wrong(span.clone(), format!("`{}.keys`: {fault}", section.path), help);
    } else {
        section.show(&span);
    }
    hash.map(|hash| (hash, expires, span))
}

fn read_credential_operations(section: &Section<'_>, catalog: &Catalog) -> Vec<EndpointId> {
    let list = section.strings("allow_credential_operations").map(|list| list.value).unwrap_or_default();
    for entry in &list {
        if catalog.named(entry.value).is_some_and(|endpoint| !endpoint.credential_operation) {
            let help = "list only those that the catalog marks; others need no such permission".to_owned();
            section.wrong(entry.span.clone(), format!("`{}` is no credential operation", entry.value), help);
        }
    }
    endpoints(section, &list, catalog)
}

fn read_managed_users(section: &Section<'_>) -> Option<Vec<UserId>> {
    let user = |value: &DeValue<'_>, span: Range<usize>| {
        let number = value.as_integer().map(toml::de::DeInteger::as_str);
        let user = value.as_str().or(number).and_then(UserId::parse);
        section.show(&span);
        if user.is_none() {
            let help = "write its number, as 123 or \"123\"".to_owned();
            section.wrong(span, format!("`{}.managed_users`: this is no managed user's id", section.path), help);
        }
        user
    };
    section.list("managed_users", user).map(|list| list.value)
}

fn read_narrowing(section: &Section<'_>, catalog: &Catalog) -> Option<NarrowingLists> {
    let lists = NarrowingLists {
        tags: section.strings("tags").map(|list| tag_rules(section, &list.value, catalog)),
        methods: section.strings("methods").map(|list| methods(section, &list.value)),
        endpoints: section.strings("endpoints").map(|list| endpoints(section, &list.value, catalog)),
    };
    (lists.tags.is_some() || lists.methods.is_some() || lists.endpoints.is_some()).then_some(lists)
}

fn methods(section: &Section<'_>, list: &[Located<&str>]) -> Vec<Method> {
    const KNOWN: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let method = |entry: &Located<&str>| {
        let method = KNOWN.into_iter().find(|m| m.as_str() == entry.value);
        if method.is_none() {
            let help = "known: GET (and with it HEAD), POST, PUT, PATCH, DELETE".to_owned();
            section.wrong(entry.span.clone(), format!("unknown method `{}`", entry.value), help);
        }
        method
    };
    list.iter().filter_map(method).collect()
}

fn endpoints(section: &Section<'_>, list: &[Located<&str>], catalog: &Catalog) -> Vec<EndpointId> {
    let endpoint = |entry: &Located<&str>| {
        let found = catalog.named(entry.value).map(|e| e.id);
        if found.is_none() {
            let all: Vec<String> = catalog.endpoints().iter().map(ToString::to_string).collect();
            let help =
                known_names(entry.value, all.iter().map(String::as_str)) + "; `calgate catalog list` prints them";
            section.wrong(entry.span.clone(), format!("unknown endpoint `{}`", entry.value), help);
        }
        found
    };
    list.iter().filter_map(endpoint).collect()
}
