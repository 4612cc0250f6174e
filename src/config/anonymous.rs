//! `[anonymous]`: callers without a gateway key.

use super::diagnostics::known_names;
use super::section::Section;
use super::tiers::MAX_PER_MINUTE;

/// Requests per minute that Cal.com grants an address without authentication (FACTS §2).
const ANONYMOUS_PER_MINUTE: u32 = 120;

/// Settings of `[anonymous]`.
#[derive(Debug, Clone)]
pub struct Anonymous {
    /// Consumer that callers without a key act as.
    pub consumer: Option<Box<str>>,
    /// Requests per minute and client address, where there is no such consumer.
    pub requests_per_minute: u32,
}

impl Default for Anonymous {
    fn default() -> Self {
        Self { consumer: None, requests_per_minute: ANONYMOUS_PER_MINUTE }
    }
}

impl Anonymous {
    pub(super) fn read<'k>(section: &Section<'_>, consumers: impl Iterator<Item = &'k String> + Clone) -> Self {
        let consumer = section.string("consumer");
        if let Some(name) = consumer.as_ref().filter(|name| !consumers.clone().any(|known| known == name.value)) {
            let help = known_names(name.value, consumers.map(String::as_str));
            section.error(name.span.clone(), format!("unknown consumer `{}`", name.value), help);
        }
        let per_minute = section.integer("requests_per_minute", 1..=MAX_PER_MINUTE);
        Self {
            consumer: consumer.map(|name| name.value.into()),
            requests_per_minute: per_minute.unwrap_or(ANONYMOUS_PER_MINUTE),
        }
    }
}
