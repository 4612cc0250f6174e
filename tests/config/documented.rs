//! Checks that `config/calgate.toml` documents every key with its default, and no other key.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use calgate::config::Config;
use toml::{Table, Value};

use crate::credential::rig::SEAL_KEY;

const FILE: &str = include_str!("../../config/calgate.toml");

/// Keys with an example instead of a default: they have none, or it depends on the machine.
const EXAMPLES: [&str; 8] = [
    "tiers.premium.max_wait",
    "listen.workers",
    "upstream.ca_file",
    "upstream.roots",
    "upstream.proxy",
    "catalog.file",
    "anonymous.consumer",
    "passthrough.plan",
];

/// Sections with an example: the operator chooses their names, or they have no defaults.
const NAMED: [&str; 5] = ["plans.", "credentials.", "consumers.", "token_store.", "limit_store."];

/// Returns the file without the `#` of the keys that `wanted` selects by `section.key`.
fn uncommented(wanted: impl Fn(&str) -> bool) -> String {
    let (mut section, mut out) = (String::new(), String::new());
    for line in FILE.lines() {
        let bare = line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' '));
        let text = bare.unwrap_or(line);
        if let Some(name) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        }
        let key = text.split(' ').next().unwrap_or_default();
        let used = bare.is_none() || wanted(&format!("{section}.{key}"));
        out += if used { text } else { line };
        out.push('\n');
    }
    out
}

fn everything() -> String {
    let text = uncommented(|_| true);
    text.replace("/etc/calgate/catalog.toml", "config/catalog.toml")
        .replace("/etc/calgate/ca.pem", "tests/data/config/ca.pem")
        .replace("/etc/calgate/postgres-ca.pem", "tests/data/config/ca.pem")
        .replace("/etc/calgate/redis-ca.pem", "tests/data/config/ca.pem")
        .replace("CAL_API_KEY", "CARGO_PKG_NAME")
        .replace("CAL_CLIENT_SECRET", "CARGO_PKG_NAME")
        .replace("CAL_OAUTH_SECRET", "CARGO_PKG_NAME")
        .replace("kind = \"single\"", "kind = \"sentinel\"")
        .replace("env = \"CALGATE_SEAL_KEY\"", &format!("file = \"{}\"", seal_key_file().display()))
}

/// Returns the path of a file with a seal key that only its owner can read.
fn seal_key_file() -> PathBuf {
    static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("seal-key");
        std::fs::write(&path, SEAL_KEY).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    });
    PATH.clone()
}

/// Collects the keys of a document, including those of tables in lists.
fn keys(table: &Table, path: &str, found: &mut BTreeSet<String>) {
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        for value in value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice) {
            if let Value::Table(inner) = value {
                keys(inner, &path, found);
            }
        }
        found.insert(path);
    }
}

#[test]
fn the_file_contains_only_defaults() {
    let documented = Config::parse("calgate.toml", FILE).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(format!("{documented:?}"), format!("{:?}", Config::parse("", "").unwrap()));
}

#[test]
fn each_documented_default_is_that_of_the_code() {
    let defaults = uncommented(|key| !EXAMPLES.contains(&key) && !NAMED.iter().any(|name| key.starts_with(name)));
    let written = Config::parse("calgate.toml", &defaults).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(format!("{written:#?}"), format!("{:#?}", Config::parse("", "").unwrap()));
}

#[test]
fn each_documented_default_of_the_limit_store_is_that_of_the_code() {
    let keys = ["limit_store.redis", "limit_store.kind", "limit_store.timeout", "limit_store.on_loss"];
    let text = uncommented(|key| keys.contains(&key)).replace("#[limit_store]", "[limit_store]");
    let written = Config::parse("calgate.toml", &text).unwrap_or_else(|error| panic!("{error}"));
    let least = Config::parse("", "[limit_store]\nredis = \"rediss://redis.internal:6379/0\"").unwrap();
    assert_eq!(format!("{:#?}", written.limit_store), format!("{:#?}", least.limit_store));
    assert!(written.limit_store.is_some());
}

#[test]
fn each_example_is_valid() {
    let config = Config::parse("calgate.toml", &everything()).unwrap_or_else(|error| panic!("{error}"));
    assert!(config.catalog.custom.is_some() && config.upstream.ca_file.is_some());
    assert_eq!(config.credentials.len(), 3);
    assert!(config.token_store.is_some());
    assert!(config.limit_store.is_some());
    assert_eq!(config.consumers[0].keys.len(), 2);
}

#[test]
fn every_key_is_documented_and_no_other() {
    let text = everything();
    let mut documented = BTreeSet::new();
    keys(&text.parse().unwrap(), "", &mut documented);
    let mut looked_for = Config::keys_looked_for(&text);
    // A secret comes from `file` or `env`. The head of the file names both, and an example shows one.
    let is_source = |key: &str| {
        ["credentials.", "token_store.", "limit_store."].iter().any(|start| key.starts_with(start))
            && ["env", "file"].contains(&key.rsplit('.').next().unwrap_or_default())
    };
    // The keys of these sections are names that the operator chooses.
    let is_name = |key: &str| {
        ["plans.", "tiers.", "credentials.", "consumers."].iter().any(|start| key.starts_with(start))
            && key.matches('.').count() == 1
    };
    documented.retain(|key| !is_source(key) && !is_name(key));
    looked_for.retain(|key| !is_source(key));
    // The example is a file. The comment above it documents the alternative.
    assert!(FILE.contains("postgres = { env") && looked_for.remove("token_store.postgres"));
    assert_eq!(documented, looked_for);
}
