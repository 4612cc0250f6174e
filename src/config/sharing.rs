//! `[limit_store]`: the Redis or Valkey server that holds the limits that several gateways share.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::contents::Authority;
use super::hiding::is_plain;
use super::reader::Section;
use super::secret;
use crate::secret::Secret;
use crate::sharing::link::Address;
use crate::sharing::{Kind, OnLoss, WITHIN};

/// Where limits are that several gateways share.
#[derive(Debug, Clone)]
pub struct SharingConfig {
    /// The server's URL, or several, separated by commas.
    pub redis: Secret,
    /// The file that holds them, if it is one: it is read again before each connection.
    pub redis_file: Option<PathBuf>,
    /// What is at these addresses.
    pub kind: Kind,
    /// The only certificate authority to trust, instead of the public ones: a PEM file.
    pub ca_file: Option<PathBuf>,
    /// What becomes of the consumers' buckets while the store cannot be asked.
    pub on_loss: OnLoss,
    /// How long a call may take.
    pub timeout: Duration,
}

/// What tells it from another one without a secret: a running gateway keeps to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharingIdentity(String, Kind, Option<Authority>, OnLoss, Duration);

impl SharingConfig {
    /// What tells it from another one.
    pub fn identity(&self) -> SharingIdentity {
        let authority = Authority::of(self.ca_file.as_deref());
        // Of URLs in a file, only user and password can change without a restart.
        let servers = self.redis_file.as_ref().and_then(|_| Address::servers(&self.redis, &self.kind));
        SharingIdentity(
            servers.unwrap_or_else(|| self.redis.fingerprint()),
            self.kind.clone(),
            authority,
            self.on_loss,
            self.timeout,
        )
    }
}

#[derive(Clone, Copy)]
enum KindName {
    Single,
    Cluster,
    Sentinel,
}

const KINDS: [(&str, KindName); 3] =
    [("single", KindName::Single), ("cluster", KindName::Cluster), ("sentinel", KindName::Sentinel)];

const ON_LOSS: [(&str, OnLoss); 3] = [("local", OnLoss::Local), ("share", OnLoss::Share), ("closed", OnLoss::Closed)];

/// Allowed values of `timeout`. The store takes a gateway to be cut off that it has not heard from for 1.5 s, and a heartbeat every half
/// second may take twice this time.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_millis(500);

/// Reads the section.
pub(super) fn read(section: &Section<'_>) -> Option<SharingConfig> {
    let redis = read_url(section);
    let redis_file = secret::file_of(section, "redis");
    let kind = read_kind(section);
    let ca_file = section.ca_file("ca_file");
    let on_loss = section.choice("on_loss", &ON_LOSS).unwrap_or_default();
    let timeout = read_timeout(section);
    let redis = redis?;
    let (is_tls, several) = redis.with_text(|urls| (urls.contains("rediss://"), urls.contains(',')));
    if let Some(path) = ca_file.as_ref().filter(|_| !is_tls) {
        let help = "write rediss://… in `limit_store.redis`, or leave it out".to_owned();
        section.wrong(path.span.clone(), "`limit_store.ca_file` is for TLS, which is not spoken there", help);
    }
    if let Some((_, span)) = section.raw("redis").filter(|_| several && kind == Kind::Single) {
        let help = "say of what in `limit_store.kind`: \"cluster\" or \"sentinel\"".to_owned();
        section.wrong(span, "`limit_store.redis` names several addresses", help);
    }
    if let Some((_, span)) = section.raw("redis").filter(|_| !several || kind != Kind::Single)
        && let Err(fault) = Address::check(&redis, &kind)
    {
        let help = "each address is redis://HOST:PORT/DB, or rediss://… for TLS".to_owned();
        section.wrong(span, format!("`limit_store.redis` cannot be used: {fault}"), help);
    }
    Some(SharingConfig { redis, redis_file, kind, ca_file: ca_file.map(|path| path.value), on_loss, timeout })
}

fn read_timeout(section: &Section<'_>) -> Duration {
    let Some(timeout) = section.duration("timeout") else { return WITHIN };
    if let Some((_, span)) = section.raw("timeout").filter(|_| !TIMEOUTS.contains(&timeout)) {
        let help =
            "write a time from \"5ms\" to \"500ms\"; a store that is farther away cannot be asked for each request"
                .to_owned();
        section.wrong(span, format!("`limit_store.timeout` is {} ms", timeout.as_millis()), help);
    }
    timeout
}

fn read_kind(section: &Section<'_>) -> Kind {
    let name = section.string("sentinel");
    let kind = section.choice("kind", &KINDS).unwrap_or(KindName::Single);
    match (kind, name) {
        (KindName::Sentinel, Some(name)) => Kind::Sentinel(name.value.to_owned()),
        (KindName::Sentinel, None) => {
            section.missing("sentinel", "the name of what the sentinels watch, such as \"mymaster\"");
            Kind::Sentinel(String::new())
        }
        (kind, name) => {
            if let Some(name) = name {
                let help = "write kind = \"sentinel\" if the addresses are sentinels'".to_owned();
                section.wrong(name.span, "`limit_store.sentinel` is given, but no sentinel is asked", help);
            }
            if matches!(kind, KindName::Cluster) { Kind::Cluster } else { Kind::Single }
        }
    }
}

/// A URL with a password comes from where secrets come from; one without may be written as it is.
fn read_url(section: &Section<'_>) -> Option<Secret> {
    let Some((value, span)) = section.raw("redis") else {
        section.missing("redis", "a URL such as \"redis://127.0.0.1:6379\", or { env = \"…\" }");
        return None;
    };
    if value.as_str().is_some_and(is_plain) {
        section.show(&span);
    }
    let url = match value.as_str() {
        Some(url) if !url.contains('@') => match Secret::new(url) {
            Ok(url) => url,
            Err(fault) => {
                section.wrong(span, format!("`limit_store.redis` cannot be used: {fault}"), None);
                return None;
            }
        },
        _ => secret::read(section, "redis")?,
    };
    let is_url = |url: &str| ["redis://", "rediss://"].iter().any(|scheme| url.trim().starts_with(scheme));
    if !url.with_text(|urls| urls.split(',').all(is_url)) {
        let help = "each is redis://HOST:PORT/DB, or rediss://… for TLS".to_owned();
        section.wrong(span, "`limit_store.redis` holds an address that is no URL of a Redis", help);
        return None;
    }
    Some(url)
}
