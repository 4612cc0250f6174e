//! Errors about the URLs of stores: each names its line and never shows the URL.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use calgate::config::Config;
use tempfile::TempDir;

/// Returns the errors about a section whose `key` takes `address` from a file, followed by another mistake.
fn errors_of(section: &str, key: &str, address: &str, more: &str) -> Vec<String> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("address");
    fs::write(&path, address).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let text = format!("[{section}]\n{key} = {{ file = \"{}\" }}\n{more}\n[limits]\nbody = \"soon\"\n", path.display());
    let error = Config::parse("calgate.toml", &text).unwrap_err();
    assert!(!format!("{error} {error:?} {:?}", error.lines()).contains("canary"), "{address}");
    error.lines()
}

#[test]
fn an_invalid_redis_url_is_reported_with_every_other_mistake() {
    for (kind, address, fault) in [
        ("single", "redis://h:99999/0", "its port is not a number from 1 to 65535"),
        ("single", "redis://h:0", "its port is not a number from 1 to 65535"),
        ("single", "redis://default:canary", "its port is not a number from 1 to 65535"),
        ("single", "redis://u:canary@[::1]:x", "its port is not a number from 1 to 65535"),
        ("single", "redis://u:canary@h o", "it contains a blank"),
        ("single", "redis://u:canary@h^o", "it is not a URL"),
        ("single", "redis://", "it names no host"),
        ("single", "rediss://u:canary@", "it is not a URL"),
        ("single", "redis://u:canary@h/abc", "its database is not a number"),
        ("single", "redis://u:canary@h/-1", "its database is not a number"),
        ("single", "rediss://u:canary@h#insecure", "it has a fragment"),
        ("single", "redis://u:canary@h?protocol=canary", "invalid client config"),
        ("single", "redis://u:canary@a,redis://u:canary@b", "names several addresses"),
        ("cluster", "redis://u:canary@a,rediss://u:canary@b", "its addresses differ in the use of TLS"),
        ("sentinel", "redis://u:canary@a,rediss://u:canary@b", "its addresses differ in the use of TLS"),
        ("cluster", "redis://u:canary@a,redis://u:canary2@b", "its addresses differ in user or password"),
        ("cluster", "redis://u:canary@a/1,redis://u:canary@b/2", "its addresses differ in their database"),
        ("cluster", "redis://u:canary@a,redis://u:canary@b:x", "its port is not a number from 1 to 65535"),
    ] {
        let name = if kind == "sentinel" { "\nsentinel = \"mymaster\"" } else { "" };
        let lines = errors_of("limit_store", "redis", address, &format!("kind = \"{kind}\"{name}"));
        let [first, second] = lines.as_slice() else { panic!("{address}: {lines:?}") };
        assert!(
            first.starts_with("calgate.toml:2:9: `limit_store.redis`") && first.contains(fault),
            "{address}: {first}"
        );
        assert!(second.contains("`limits.body` is not a time"), "{address}: {second}");
    }
    for (kind, address) in [
        ("single", "redis://u:can%40ary@[::1]:6379/0/"),
        ("single", "rediss://h"),
        ("cluster", "redis://a:1,redis://b:2"),
        ("sentinel", "redis://u:canary@a, redis://b"),
    ] {
        let name = if kind == "sentinel" { "\nsentinel = \"mymaster\"" } else { "" };
        let lines = errors_of("limit_store", "redis", &address.replace(' ', ""), &format!("kind = \"{kind}\"{name}"));
        assert_eq!(lines.len(), 1, "{address}: {lines:?}");
    }
}

#[test]
fn an_invalid_postgres_url_is_reported_with_every_other_mistake() {
    for (address, fault) in [
        ("canary", "the address of the PostgreSQL store is not a URL"),
        ("redis://u:canary@h", "the address of the PostgreSQL store is not a URL"),
        ("postgres://u:canary@h:99999/d", "`port` in the address"),
        ("postgres://u:canary@h/d?other=1", "the parameter `other` that calgate does not know"),
        ("postgres://u:canary@h:0/d", "a port that is not a number from 1 to 65535"),
        ("postgres:///canary", "names no host"),
        ("postgres://u:canary@a:1,b:2,c/d?hostaddr=1.2.3.4", "has different numbers of `host` and `hostaddr` values"),
    ] {
        let lines = errors_of("token_store", "postgres", address, "seal_keys = 1");
        let [first, keys, second] = lines.as_slice() else { panic!("{address}: {lines:?}") };
        assert!(
            first.starts_with("calgate.toml:2:12: `token_store.postgres`") && first.contains(fault),
            "{address}: {first}"
        );
        assert!(keys.contains("`token_store.seal_keys` must be a list"), "{address}: {keys}");
        assert!(second.contains("`limits.body` is not a time"), "{address}: {second}");
    }
    for address in ["postgres://u:canary@h:5432/d", "postgresql://h/d?sslmode=disable", "postgres://u@a:1,b:2/d"] {
        assert_eq!(errors_of("token_store", "postgres", address, "seal_keys = 1").len(), 2, "{address}");
    }
}
