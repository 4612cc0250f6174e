//! Settings that an upstream was built from, by which a reload finds out whether it changed.

use std::time::Duration;

use crate::config::file_digest::CaFile;
use crate::config::limits::Bounds;
use crate::config::upstream::Upstream as UpstreamConfig;

/// Settings that an upstream was built from.
#[derive(PartialEq, Eq)]
pub(super) struct UpstreamFingerprint {
    config: UpstreamConfig,
    ca_file: Option<CaFile>,
    timeouts: [Duration; 5],
}

impl UpstreamFingerprint {
    /// Returns the settings that an upstream would be built from now.
    pub(super) fn of(config: &UpstreamConfig, limits: &Bounds) -> Self {
        let timeouts = [
            limits.upstream_lookup,
            limits.upstream_connect,
            limits.upstream_headers,
            limits.upstream_total,
            limits.upstream_connection_age,
        ];
        Self { config: config.clone(), ca_file: CaFile::read(config.ca_file.as_deref()), timeouts }
    }
}
