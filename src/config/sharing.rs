//! `[store] redis`: where limits are that several gateways share.

use std::path::PathBuf;

use super::reader::Section;
use super::secret;
use crate::secret::Secret;
use crate::sharing::{Kind, OnLoss};

/// Where limits are that several gateways share.
#[derive(Debug, Clone)]
pub struct SharingConfig {
    /// The server's URL, or several, separated by commas.
    pub redis: Secret,
    /// What is at these addresses.
    pub kind: Kind,
    /// The only certificate authority to trust, instead of the public ones: a PEM file.
    pub ca_file: Option<PathBuf>,
    /// What becomes of the consumers' buckets while the store cannot be asked.
    pub on_loss: OnLoss,
}

/// What tells it from another one without a secret: a running gateway keeps to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharingIdentity(String, Kind, Option<PathBuf>, OnLoss);

impl SharingConfig {
    /// What tells it from another one.
    pub fn identity(&self) -> SharingIdentity {
        SharingIdentity(self.redis.fingerprint(), self.kind.clone(), self.ca_file.clone(), self.on_loss)
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

/// The store, if one is configured.
pub(super) fn read(section: &Section<'_>) -> Option<SharingConfig> {
    let redis = read_url(section);
    let name = section.string("redis_sentinel");
    let kind = match section.choice("redis_kind", &KINDS).unwrap_or(KindName::Single) {
        KindName::Single => Kind::Single,
        KindName::Cluster => Kind::Cluster,
        KindName::Sentinel => {
            if name.is_none() {
                section.missing("redis_sentinel", "the name of what the sentinels watch, such as \"mymaster\"");
            }
            Kind::Sentinel(name.map(|name| name.value.to_owned()).unwrap_or_default())
        }
    };
    let ca_file = section.string("redis_ca_file").map(|path| PathBuf::from(path.value));
    let on_loss = section.choice("on_store_loss", &ON_LOSS).unwrap_or_default();
    Some(SharingConfig { redis: redis?, kind, ca_file, on_loss })
}

/// A URL with a password comes from where secrets come from; one without may be written as it is.
fn read_url(section: &Section<'_>) -> Option<Secret> {
    let (value, span) = section.raw("redis")?;
    match value.as_str() {
        Some(url) if !url.contains('@') => match Secret::new(url) {
            Ok(url) => Some(url),
            Err(fault) => {
                section.wrong(span, format!("`store.redis` cannot be used: {fault}"), None);
                None
            }
        },
        _ => secret::read(section, "redis"),
    }
}
