//! `[consumers.NAME]`: the internal services with their keys and restrictions.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::SystemTime;

use http::Method;
use toml::de::DeValue;

use super::credentials::CredentialConfig;
use super::diagnostics::known_names;
use super::plans::tag_rules;
use super::section::{Section, Spanned};
use super::tiers::{DEFAULT_TIER, TierConfig};
use crate::catalog::{Catalog, EndpointId};
use crate::credential::managed_user::UserId;
use crate::entitle::TagRule;
use crate::secret::KeyHash;

/// Settings of a consumer.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// Name.
    pub name: Box<str>,
    /// Hashes of its keys, each with its time of expiry.
    pub keys: Vec<(KeyHash, Option<SystemTime>)>,
    /// Name of its credential.
    pub credential: Box<str>,
    /// Name of its tier.
    pub tier: Box<str>,
    /// Restriction beyond the plan, if there is one.
    pub restriction: Option<Box<RestrictionLists>>,
    /// Credential operations that it may call.
    pub credential_operations: Vec<EndpointId>,
    /// Managed users that it may act for. `None` means all users of its credential.
    pub managed_users: Option<Vec<UserId>>,
}

/// Lists that restrict a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestrictionLists {
    /// `tags`
    pub tags: Option<Vec<TagRule>>,
    /// `methods`
    pub methods: Option<Vec<Method>>,
    /// `endpoints`
    pub endpoints: Option<Vec<EndpointId>>,
}

/// Tables that the keys of a consumer refer to by name.
pub(super) struct References<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) tiers: &'a BTreeMap<String, TierConfig>,
    pub(super) credentials: &'a BTreeMap<String, Option<CredentialConfig>>,
}

/// Reads all consumers by name. An invalid one is reported and has the value `None`.
pub(super) fn read(
    section: Option<&Section<'_>>,
    references: &References<'_>,
) -> BTreeMap<String, Option<ConsumerConfig>> {
    let mut seen = HashMap::new();
    let mut consumers = BTreeMap::new();
    for (name, consumer) in section.map(Section::named_sections).unwrap_or_default() {
        consumers.insert(name.value.to_owned(), read_one(name.value, &consumer, references, &mut seen));
        consumer.reject_unknown();
    }
    consumers
}

fn read_one(
    name: &str,
    section: &Section<'_>,
    references: &References<'_>,
    seen: &mut HashMap<KeyHash, String>,
) -> Option<ConsumerConfig> {
    let keys = section.list("keys", |value, span| read_key(section, value, span)).map(|list| list.value);
    let keys: Vec<_> = keys.unwrap_or_default();
    for (hash, _, span) in &keys {
        if let Some(other) = seen.insert(*hash, name.to_owned()) {
            section.error(span.clone(), format!("the key is listed for `consumers.{other}` already"), None);
        }
    }
    let restriction = read_restriction(section, references.catalog);
    let operations = read_credential_operations(section, references.catalog);
    let managed_users = read_managed_users(section);
    let tier = reference(section, "tier", references.tiers.keys(), Some(DEFAULT_TIER));
    let credential = reference(section, "credential", references.credentials.keys(), None);
    let (tier, credential) = tier.zip(credential)?;
    Some(ConsumerConfig {
        name: name.into(),
        keys: keys.into_iter().map(|(hash, expires, _)| (hash, expires)).collect(),
        credential,
        tier,
        restriction: restriction.map(Box::new),
        credential_operations: operations,
        managed_users,
    })
}

/// Reads a name that has to be one of `known`. A key without a default is required.
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
    section.error(
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
            let key = section.subsection("keys", table, span.clone());
            let hash = key.string("hash");
            if key.raw("hash").is_none() {
                key.missing("hash", "the sha256:… line that `calgate key new` prints");
            }
            let expires = key.timestamp("expires").and_then(|moment| SystemTime::try_from(moment).ok());
            key.reject_unknown();
            let hash = hash?;
            (hash.value, expires, hash.span)
        }
        _ => ("", None, span),
    };
    let hash = KeyHash::parse(text);
    if hash.is_none() {
        let fault =
            if text.starts_with("calgate_") { "this is a key itself, not its hash" } else { "this is not a key hash" };
        let help = "write the sha256:… line that `calgate key new` prints".to_owned();
        section.hide(span.clone());
        section.error(span.clone(), format!("`{}.keys`: {fault}", section.path), help);
    } else {
        section.show(&span);
    }
    hash.map(|hash| (hash, expires, span))
}

fn read_credential_operations(section: &Section<'_>, catalog: &Catalog) -> Vec<EndpointId> {
    let list = section.strings("allow_credential_operations").map(|list| list.value).unwrap_or_default();
    for entry in &list {
        if catalog.find_by_name(entry.value).is_some_and(|endpoint| !endpoint.credential_operation) {
            let help = "list only operations that the catalog marks; others need no such permission".to_owned();
            section.error(entry.span.clone(), format!("`{}` is not a credential operation", entry.value), help);
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
            let help = "write the number of the user, such as 123 or \"123\"".to_owned();
            section.error(
                span,
                format!("`{}.managed_users`: this is not the id of a managed user", section.path),
                help,
            );
        }
        user
    };
    section.list("managed_users", user).map(|list| list.value)
}

fn read_restriction(section: &Section<'_>, catalog: &Catalog) -> Option<RestrictionLists> {
    let lists = RestrictionLists {
        tags: section.strings("tags").map(|list| tag_rules(section, &list.value, catalog)),
        methods: section.strings("methods").map(|list| methods(section, &list.value)),
        endpoints: section.strings("endpoints").map(|list| endpoints(section, &list.value, catalog)),
    };
    (lists.tags.is_some() || lists.methods.is_some() || lists.endpoints.is_some()).then_some(lists)
}

fn methods(section: &Section<'_>, list: &[Spanned<&str>]) -> Vec<Method> {
    const KNOWN: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let method = |entry: &Spanned<&str>| {
        let method = KNOWN.into_iter().find(|m| m.as_str() == entry.value);
        if method.is_none() {
            let help = "known: GET (and with it HEAD), POST, PUT, PATCH, DELETE".to_owned();
            section.error(entry.span.clone(), format!("unknown method `{}`", entry.value), help);
        }
        method
    };
    list.iter().filter_map(method).collect()
}

fn endpoints(section: &Section<'_>, list: &[Spanned<&str>], catalog: &Catalog) -> Vec<EndpointId> {
    let endpoint = |entry: &Spanned<&str>| {
        let found = catalog.find_by_name(entry.value).map(|e| e.id);
        if found.is_none() {
            let all: Vec<String> = catalog.endpoints().iter().map(ToString::to_string).collect();
            let help =
                known_names(entry.value, all.iter().map(String::as_str)) + "; `calgate catalog list` prints them";
            section.error(entry.span.clone(), format!("unknown endpoint `{}`", entry.value), help);
        }
        found
    };
    list.iter().filter_map(endpoint).collect()
}
