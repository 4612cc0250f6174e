//! `config/calgate.toml` documents every key there is, and no other, with its default.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use calgate::config::Config;
use toml::{Table, Value};

use crate::credential::rig::SEAL_KEY;

const FILE: &str = include_str!("../../config/calgate.toml");

/// Keys that are there as an example, because they have no default or one that the machine decides.
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

/// Sections that are there as an example: their names are the operator's, or they have no defaults.
const NAMED: [&str; 5] = ["plans.", "credentials.", "consumers.", "token_store.", "limit_store."];

/// The file with its commented keys in force: those of which `wanted` says so, given `section.key`.
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

/// A file with a seal key that only its owner can read.
fn seal_key_file() -> PathBuf {
    static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("seal-key");
        std::fs::write(&path, SEAL_KEY).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    });
    PATH.clone()
}

/// The keys of a document, tables of lists included.
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
fn as_it_stands_it_is_all_defaults() {
    let documented = Config::parse("calgate.toml", FILE).unwrap_or_else(|unusable| panic!("{unusable}"));
    assert_eq!(format!("{documented:?}"), format!("{:?}", Config::parse("", "").unwrap()));
}

#[test]
fn each_default_that_is_written_is_the_codes() {
    let defaults = uncommented(|key| !EXAMPLES.contains(&key) && !NAMED.iter().any(|name| key.starts_with(name)));
    let written = Config::parse("calgate.toml", &defaults).unwrap_or_else(|unusable| panic!("{unusable}"));
    assert_eq!(format!("{written:#?}"), format!("{:#?}", Config::parse("", "").unwrap()));
}

#[test]
fn each_default_of_the_limit_store_that_is_written_is_the_codes() {
    let keys = ["limit_store.redis", "limit_store.kind", "limit_store.timeout", "limit_store.on_loss"];
    let text = uncommented(|key| keys.contains(&key)).replace("#[limit_store]", "[limit_store]");
    let written = Config::parse("calgate.toml", &text).unwrap_or_else(|unusable| panic!("{unusable}"));
    let least = Config::parse("", "[limit_store]\nredis = \"rediss://redis.internal:6379/0\"").unwrap();
    assert_eq!(format!("{:#?}", written.sharing), format!("{:#?}", least.sharing));
    assert!(written.sharing.is_some());
}

#[test]
fn each_example_works() {
    let config = Config::parse("calgate.toml", &everything()).unwrap_or_else(|unusable| panic!("{unusable}"));
    assert!(config.catalog.own.is_some() && config.upstream.ca_file.is_some());
    assert_eq!(config.credentials.len(), 3);
    assert!(config.store.is_some());
    assert!(config.sharing.is_some());
    assert_eq!(config.consumers[0].keys.len(), 2);
}

#[test]
fn every_key_that_is_looked_for_is_documented_and_no_other() {
    let text = everything();
    let mut documented = BTreeSet::new();
    keys(&text.parse().unwrap(), "", &mut documented);
    let mut looked_for = Config::keys_looked_for(&text);
    // Every secret comes from one of two places, which the head of the file names; an example shows one of them.
    let is_source = |key: &str| {
        ["credentials.", "token_store.", "limit_store."].iter().any(|start| key.starts_with(start))
            && ["env", "file"].contains(&key.rsplit('.').next().unwrap_or_default())
    };
    // What stands under these is a name that the operator chose.
    let is_name = |key: &str| {
        ["plans.", "tiers.", "credentials.", "consumers."].iter().any(|start| key.starts_with(start))
            && key.matches('.').count() == 1
    };
    documented.retain(|key| !is_source(key) && !is_name(key));
    looked_for.retain(|key| !is_source(key));
    // A store is either a file, as in the example, or this, which stands beside it.
    assert!(FILE.contains("postgres = { env") && looked_for.remove("token_store.postgres"));
    assert_eq!(documented, looked_for);
}
