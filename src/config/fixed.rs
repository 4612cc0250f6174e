//! What a running gateway cannot change: a reload that asks for it is told so.

use std::time::Duration;

use super::Config;
use super::listen::Listen;
use super::log::Log;
use super::sharing::{SharingConfig, SharingIdentity};
use super::store::{Identity, StoreConfig};

/// The parts of a configuration that are in force from start to end.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// Where it listens, with how many workers.
    pub listen: Listen,
    log: Log,
    tracked_callers: usize,
    store: Option<Identity>,
    sharing: Option<SharingIdentity>,
    /// By these four the store of shared limits knows when a request is lost.
    looks_up: bool,
    lookup_within: Duration,
    connect_within: Duration,
    headers_within: Duration,
}

impl Fixed {
    /// Those of `config`.
    pub fn of(config: &Config) -> Self {
        Self {
            listen: config.listen.clone(),
            log: config.log.clone(),
            tracked_callers: config.limits.tracked_callers,
            store: config.store.as_ref().map(StoreConfig::identity),
            sharing: config.sharing.as_ref().map(SharingConfig::identity),
            looks_up: config.upstream.looks_up(),
            lookup_within: config.limits.upstream_lookup,
            connect_within: config.limits.upstream_connect,
            headers_within: config.limits.upstream_headers,
        }
    }

    /// The keys that `newer` changes and that stay as they are until a restart.
    pub fn changed_in(&self, newer: &Config) -> Vec<&'static str> {
        let (is_shared, limits) = (self.sharing.is_some(), &newer.limits);
        let (looked_up, looks_up) = (self.looks_up, newer.upstream.looks_up());
        let lookup_differs = looked_up && looks_up && self.lookup_within != limits.upstream_lookup;
        let differs = [
            ("listen.address", self.listen.address != newer.listen.address),
            ("listen.admin", self.listen.admin != newer.listen.admin),
            ("listen.workers", self.listen.workers != newer.listen.workers),
            ("log.level", self.log.level != newer.log.level),
            ("log.format", self.log.json != newer.log.json),
            ("token_store", self.store != newer.store.as_ref().map(StoreConfig::identity)),
            ("limit_store", self.sharing != newer.sharing.as_ref().map(SharingConfig::identity)),
            ("upstream.base_url or upstream.proxy for limit_store", is_shared && looked_up != looks_up),
            ("limits.upstream_lookup for limit_store", is_shared && lookup_differs),
            ("limits.upstream_connect for limit_store", is_shared && self.connect_within != limits.upstream_connect),
            ("limits.upstream_headers for limit_store", is_shared && self.headers_within != limits.upstream_headers),
            ("limits.tracked_callers", self.tracked_callers != newer.limits.tracked_callers),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}
