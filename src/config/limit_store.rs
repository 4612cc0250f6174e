//! `[limit_store]`: the Redis or Valkey server that holds the limits that several gateways share.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::file_digest::CaFile;
use super::redact::has_no_password;
use super::secret_source;
use super::section::{Section, Spanned};
use crate::limit_store::redis::connection::{RedisAddress, Topology};
use crate::limit_store::{CALL_TIMEOUT, FailureMode};
use crate::secret::Secret;

/// Settings of `[limit_store]`.
#[derive(Debug, Clone)]
pub struct LimitStoreConfig {
    /// URL of the server, or several URLs separated by commas.
    pub redis: Secret,
    /// File with the URLs, if they come from a file. It is read again before each connection.
    pub redis_file: Option<PathBuf>,
    /// Topology of the servers at these URLs.
    pub kind: Topology,
    /// PEM file of the only certificate authorities to trust, instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// Failure mode of the consumers' buckets while the store is unavailable.
    pub on_loss: FailureMode,
    /// Longest time that a call may take.
    pub timeout: Duration,
}

/// Comparable form of the settings without a secret. A reload reports a difference, because it needs a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitStoreIdentity(String, Topology, Option<CaFile>, FailureMode, Duration);

impl LimitStoreConfig {
    /// Returns the comparable form.
    pub fn identity(&self) -> LimitStoreIdentity {
        let ca_file = CaFile::read(self.ca_file.as_deref());
        // User and password of URLs in a file can change without a restart, and nothing else.
        let servers = self.redis_file.as_ref().and_then(|_| RedisAddress::identity(&self.redis, &self.kind));
        LimitStoreIdentity(
            servers.unwrap_or_else(|| self.redis.fingerprint()),
            self.kind.clone(),
            ca_file,
            self.on_loss,
            self.timeout,
        )
    }

    /// Reads the section.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let redis = read_url(section);
        let redis_file = secret_source::file_of(section, "redis");
        let kind = read_kind(section);
        let ca_file = section.ca_file("ca_file");
        let on_loss = section.choice("on_loss", &ON_LOSS).unwrap_or_default();
        let timeout = read_timeout(section);
        let redis = redis?;
        check_url(section, &redis, &kind, ca_file.as_ref());
        Some(Self { redis, redis_file, kind, ca_file: ca_file.map(|path| path.value), on_loss, timeout })
    }
}

#[derive(Clone, Copy)]
enum TopologyName {
    Single,
    Cluster,
    Sentinel,
}

const KINDS: [(&str, TopologyName); 3] =
    [("single", TopologyName::Single), ("cluster", TopologyName::Cluster), ("sentinel", TopologyName::Sentinel)];

const ON_LOSS: [(&str, FailureMode); 3] =
    [("local", FailureMode::Local), ("share", FailureMode::Share), ("closed", FailureMode::Closed)];

/// Allowed values of `timeout`, 5 ms to 500 ms. The store regards a gateway as cut off 1.5 s after its last heartbeat. A gateway
/// sends a heartbeat every 500 ms, and each may take twice the timeout.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_millis(500);

/// Checks the URLs against the other keys of the section.
fn check_url(section: &Section<'_>, redis: &Secret, kind: &Topology, ca_file: Option<&Spanned<PathBuf>>) {
    let (is_tls, several) = redis.expose(|urls| (urls.contains("rediss://"), urls.contains(',')));
    if let Some(path) = ca_file.filter(|_| !is_tls) {
        let help = "write rediss://… in `limit_store.redis`, or remove `limit_store.ca_file`".to_owned();
        section.error(path.span.clone(), "`limit_store.ca_file` is for TLS, which this URL does not use", help);
    }
    if let Some((_, span)) = section.raw("redis").filter(|_| several && *kind == Topology::Single) {
        let help = "set limit_store.kind to \"cluster\" or \"sentinel\"".to_owned();
        section.error(span, "`limit_store.redis` names several addresses", help);
    }
    if let Some((_, span)) = section.raw("redis").filter(|_| !several || *kind != Topology::Single)
        && let Err(fault) = RedisAddress::check(redis, kind)
    {
        let help = "each address is redis://HOST:PORT/DB, or rediss://… for TLS".to_owned();
        section.error(span, format!("`limit_store.redis` cannot be used: {fault}"), help);
    }
}

fn read_timeout(section: &Section<'_>) -> Duration {
    let Some(timeout) = section.duration("timeout") else { return CALL_TIMEOUT };
    if let Some((_, span)) = section.raw("timeout").filter(|_| !TIMEOUTS.contains(&timeout)) {
        let help =
            "write a time from \"5ms\" to \"500ms\"; each request waits for the store, so it cannot be farther away"
                .to_owned();
        section.error(span, format!("`limit_store.timeout` is {} ms", timeout.as_millis()), help);
    }
    timeout
}

fn read_kind(section: &Section<'_>) -> Topology {
    let name = section.string("sentinel");
    let kind = section.choice("kind", &KINDS).unwrap_or(TopologyName::Single);
    match (kind, name) {
        (TopologyName::Sentinel, Some(name)) => Topology::Sentinel(name.value.to_owned()),
        (TopologyName::Sentinel, None) => {
            section.missing("sentinel", "the name of the primary that the sentinels watch, such as \"mymaster\"");
            Topology::Sentinel(String::new())
        }
        (kind, name) => {
            if let Some(name) = name {
                let help = "set kind = \"sentinel\" if the addresses are those of sentinels".to_owned();
                section.error(
                    name.span,
                    "`limit_store.sentinel` is set, but `limit_store.kind` is not \"sentinel\"",
                    help,
                );
            }
            if matches!(kind, TopologyName::Cluster) { Topology::Cluster } else { Topology::Single }
        }
    }
}

/// Reads the URLs. With a password they have to come from a file or the environment. Without one they may stand in the
/// configuration.
fn read_url(section: &Section<'_>) -> Option<Secret> {
    let Some((value, span)) = section.raw("redis") else {
        section.missing("redis", "a URL such as \"redis://127.0.0.1:6379\", or { env = \"…\" }");
        return None;
    };
    if value.as_str().is_some_and(has_no_password) {
        section.show(&span);
    }
    let url = match value.as_str() {
        Some(url) if !url.contains('@') => match Secret::new(url) {
            Ok(url) => url,
            Err(fault) => {
                section.error(span, format!("`limit_store.redis` cannot be used: {fault}"), None);
                return None;
            }
        },
        _ => secret_source::read(section, "redis")?,
    };
    let is_url = |url: &str| ["redis://", "rediss://"].iter().any(|scheme| url.trim().starts_with(scheme));
    if !url.expose(|urls| urls.split(',').all(is_url)) {
        let help = "each is redis://HOST:PORT/DB, or rediss://… for TLS".to_owned();
        section.error(span, "`limit_store.redis` holds an address that is not a redis:// or rediss:// URL", help);
        return None;
    }
    Some(url)
}
