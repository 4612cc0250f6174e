//! `[budget]`: Cal.com's rate-limit window for a credential, and how long requests may wait for it.

use std::time::Duration;

use super::section::Section;
use crate::budget::BudgetMode;

/// Settings of `[budget]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetConfig {
    /// Whether calgate enforces the limits.
    pub mode: BudgetMode,
    /// Length of the window in which Cal.com counts requests.
    pub window: Duration,
    /// Number of gateways on the same credentials that do not share limits.
    pub expected_replicas: u32,
    /// Longest wait of a request whose tier does not set one.
    pub max_wait: Duration,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            mode: BudgetMode::Enforce,
            window: Duration::from_secs(60),
            expected_replicas: 1,
            max_wait: Duration::from_secs(5),
        }
    }
}

impl BudgetConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let modes = [("enforce", BudgetMode::Enforce), ("observe", BudgetMode::Observe), ("off", BudgetMode::Off)];
        Self {
            mode: section.choice("mode", &modes).unwrap_or(default.mode),
            window: section.duration("window").unwrap_or(default.window),
            expected_replicas: section.integer("expected_replicas", 1..=10_000).unwrap_or(default.expected_replicas),
            max_wait: section.duration("max_wait").unwrap_or(default.max_wait),
        }
    }
}
