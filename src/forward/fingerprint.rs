//! What an upstream is made from, by which a reload tells whether it is still the same.

use std::time::Duration;

use crate::config::file_digest::CaFile;
use crate::config::limits::Bounds;
use crate::config::upstream::Upstream as UpstreamConfig;

/// What an upstream is made from.
#[derive(PartialEq, Eq)]
pub(super) struct Origin {
    config: UpstreamConfig,
    authority: Option<CaFile>,
    within: [Duration; 5],
}

impl Origin {
    /// What one would be made from now.
    pub(super) fn of(config: &UpstreamConfig, limits: &Bounds) -> Self {
        let within = [
            limits.upstream_lookup,
            limits.upstream_connect,
            limits.upstream_headers,
            limits.upstream_total,
            limits.upstream_connection_age,
        ];
        Self { config: config.clone(), authority: CaFile::read(config.ca_file.as_deref()), within }
    }
}
