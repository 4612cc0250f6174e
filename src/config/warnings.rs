//! Warnings about valid settings that are probably mistakes.
//!
//! `calgate check` prints them, and `calgate serve` logs them.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::Config;
use super::listen::Address;
use super::section::Section;
use crate::budget::{API_KEY_PER_MINUTE, OAUTH_PER_MINUTE};
use crate::config::credentials::CredentialConfig;
use crate::credential::Kind;
use crate::secret::Secret;

/// Longest API key or client secret without a warning, 1,024 characters. Those of Cal.com have fewer than 100.
const MAX_SECRET: usize = 1024;

/// Adds all warnings about a valid configuration.
pub(super) fn add(root: &Section<'_>, config: &Config) {
    check_listeners(root, config);
    check_credentials(root, config);
    check_consumers(root, config);
}

/// Warns of a text that does not look like an API key or client secret.
pub(super) fn check_secret(section: &Section<'_>, key: &'static str, secret: &Secret) {
    let fault = secret.expose(|text| {
        if text.starts_with("calgate_") {
            Some("holds a gateway key instead of a Cal.com secret".to_owned())
        } else if text.starts_with(['"', '\'']) || text.ends_with(['"', '\'']) {
            Some("begins or ends with a quotation mark".to_owned())
        } else {
            (text.len() > MAX_SECRET).then(|| format!("has {} characters", text.len()))
        }
    });
    if let (Some(fault), Some((_, span))) = (fault, section.raw(key)) {
        let help = "check the file or variable that holds it".to_owned();
        section.warn(span, format!("`{}.{key}` {fault}", section.path), help);
    }
}

fn check_listeners(root: &Section<'_>, config: &Config) {
    let Some(section) = root.section("listen") else { return };
    let is_remote = |address: &Address| matches!(address, Address::Tcp(tcp) if !tcp.ip().is_loopback());
    if is_remote(&config.listen.address)
        && let Some(address) = section.string("address")
    {
        if let Some(consumer) = &config.anonymous.consumer {
            let help = "listen on a loopback address or a Unix socket, or remove `anonymous.consumer`".to_owned();
            let message =
                format!("anyone who reaches `listen.address` acts as the consumer `{consumer}`, without a key");
            section.warn(address.span.clone(), message, help);
        }
        let help = "put a TLS proxy in front, or listen on a loopback address".to_owned();
        section.warn(
            address.span,
            "`listen.address` is reachable over a network, and calgate does not offer TLS there",
            help,
        );
    }
    if config.listen.admin.as_ref().is_some_and(is_remote)
        && let Some(admin) = section.string("admin")
    {
        let help = "block access for callers, because it shows consumers, credentials and limits".to_owned();
        section.warn(admin.span, "`listen.admin` is reachable over a network and needs no key", help);
    }
}

fn check_credentials(root: &Section<'_>, config: &Config) {
    let used: BTreeSet<&str> = config.consumers.iter().map(|consumer| &*consumer.credential).collect();
    for (name, section) in root.section("credentials").iter().flat_map(Section::named_sections) {
        if !used.contains(name.value) {
            let help = "name it as the `credential` of a consumer, or remove it".to_owned();
            section.warn(name.span, format!("no consumer uses `{}`", section.path), help);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "expiry dates are compared with the time of day")]
fn check_consumers(root: &Section<'_>, config: &Config) {
    let now = SystemTime::now();
    for (name, section) in root.section("consumers").iter().flat_map(Section::named_sections) {
        let Some(consumer) = config.consumers.iter().find(|consumer| &*consumer.name == name.value) else { continue };
        let is_anonymous = config.anonymous.consumer.as_deref() == Some(name.value);
        if consumer.keys.is_empty() && !is_anonymous {
            let help = "`calgate key new` makes a key and the line for `keys`".to_owned();
            section.warn(name.span.clone(), format!("`{}` has no key, so no client can act as it", section.path), help);
        }
        let expired = consumer.keys.iter().filter(|(_, expires)| expires.is_some_and(|expires| expires <= now)).count();
        if expired > 0 {
            let message = format!("{expired} of the {} keys of `{}` have expired", consumer.keys.len(), section.path);
            section.warn(name.span.clone(), message, "remove them, or replace them by new ones".to_owned());
        }
        let tier = config.tiers.get(&*consumer.tier);
        let Some((tier, credential)) = tier.zip(config.credentials.get(&*consumer.credential)) else { continue };
        let granted = credential.per_minute();
        if tier.requests_per_minute > granted && !credential.learn_limit {
            let message = format!(
                "the tier `{}` of `{}` allows {} requests per minute, but Cal.com grants its credential `{}` only {granted}",
                consumer.tier, section.path, tier.requests_per_minute, consumer.credential
            );
            let help =
                "use a smaller tier, or set requests_per_minute of the credential to the limit that Cal.com grants";
            section.warn(section.string("tier").map_or(name.span, |tier| tier.span), message, help.to_owned());
        }
    }
}

impl CredentialConfig {
    /// Returns the requests per minute that Cal.com grants the credential, as configured or by its kind (FACTS §2).
    fn per_minute(&self) -> u32 {
        let by_kind = match self.credential.kind {
            Kind::ApiKey(_) => API_KEY_PER_MINUTE,
            Kind::OAuth(_) | Kind::PlatformClient(_) => OAUTH_PER_MINUTE,
        };
        self.requests_per_minute.unwrap_or(by_kind)
    }
}
