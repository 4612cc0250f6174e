//! Settings that are fixed from start to exit. A reload that changes one of them reports that it needs a restart.

use std::time::Duration;

use super::Config;
use super::limit_store::{LimitStoreConfig, LimitStoreIdentity};
use super::listen::Listen;
use super::log::Log;
use super::token_store::{TokenStoreConfig, TokenStoreIdentity};

/// Settings of the configuration at start that no reload changes.
#[derive(Debug, Clone)]
pub struct StartupConfig {
    /// Listeners and number of workers.
    pub listen: Listen,
    log: Log,
    tracked_callers: usize,
    token_store: Option<TokenStoreIdentity>,
    limit_store: Option<LimitStoreIdentity>,
    // The limit store derives from the next four settings when it regards a request as lost.
    needs_lookup: bool,
    lookup_timeout: Duration,
    connect_timeout: Duration,
    headers_timeout: Duration,
}

impl StartupConfig {
    /// Copies these settings from `config`.
    pub fn of(config: &Config) -> Self {
        Self {
            listen: config.listen.clone(),
            log: config.log.clone(),
            tracked_callers: config.limits.tracked_callers,
            token_store: config.token_store.as_ref().map(TokenStoreConfig::identity),
            limit_store: config.limit_store.as_ref().map(LimitStoreConfig::identity),
            needs_lookup: config.upstream.needs_lookup(),
            lookup_timeout: config.limits.upstream_lookup,
            connect_timeout: config.limits.upstream_connect,
            headers_timeout: config.limits.upstream_headers,
        }
    }

    /// Returns the keys that differ in `newer` and need a restart to take effect.
    pub fn changed_in(&self, newer: &Config) -> Vec<&'static str> {
        let (is_shared, limits) = (self.limit_store.is_some(), &newer.limits);
        let (needed_lookup, needs_lookup) = (self.needs_lookup, newer.upstream.needs_lookup());
        let lookup_differs = needed_lookup && needs_lookup && self.lookup_timeout != limits.upstream_lookup;
        let differs = [
            ("listen.address", self.listen.address != newer.listen.address),
            ("listen.admin", self.listen.admin != newer.listen.admin),
            ("listen.workers", self.listen.workers != newer.listen.workers),
            ("log.level", self.log.level != newer.log.level),
            ("log.format", self.log.json != newer.log.json),
            ("token_store", self.token_store != newer.token_store.as_ref().map(TokenStoreConfig::identity)),
            ("limit_store", self.limit_store != newer.limit_store.as_ref().map(LimitStoreConfig::identity)),
            ("upstream.base_url or upstream.proxy for limit_store", is_shared && needed_lookup != needs_lookup),
            ("limits.upstream_lookup for limit_store", is_shared && lookup_differs),
            ("limits.upstream_connect for limit_store", is_shared && self.connect_timeout != limits.upstream_connect),
            ("limits.upstream_headers for limit_store", is_shared && self.headers_timeout != limits.upstream_headers),
            ("limits.tracked_callers", self.tracked_callers != newer.limits.tracked_callers),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}
