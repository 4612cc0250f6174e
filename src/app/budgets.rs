//! From a configuration to the budgets of its credentials.

use std::collections::HashMap;
use std::sync::Arc;

use super::App;
use super::build::dangling;
use crate::budget::headers::name_hash;
use crate::budget::{
    API_KEY_PER_MINUTE, Asker, Budgets, OAUTH_PER_MINUTE, Own, Priority, Settings, Table, Terms, identity,
};
use crate::config::Config;
use crate::config::consumers::ConsumerConfig;
use crate::config::credentials::CredentialConfig;
use crate::config::tiers::TierConfig;
use crate::credential::{Injection, Kind};

/// The budgets of a configuration, in the table that `previous` has.
pub(super) fn budgets(config: &Config, previous: Option<&App>) -> Result<Budgets, String> {
    let section = &config.budget;
    let common = Settings { limit: 1, window: section.window, replicas: section.expected_replicas, learn_limit: false };
    let new_table = || Arc::new(Table::new(config.limits.tracked_callers, common.of(API_KEY_PER_MINUTE)));
    let table = previous.map_or_else(new_table, |app| app.budget.table.clone());
    let known = Known { limits: limits(config), common, table: &table };
    let own = |consumer: &ConsumerConfig| {
        let credential = config.credentials.get(&*consumer.credential).ok_or_else(|| dangling(consumer))?;
        let tier = config.tiers.get(&*consumer.tier).ok_or_else(|| dangling(consumer))?;
        let (bearer, client) = injections(credential);
        Ok(Own {
            terms: terms(config, name_hash(&consumer.name), tier),
            credential: credential.credential.name.clone(),
            bearer: bearer.and_then(|bearer| known.budget(credential, &bearer)),
            client: client.and_then(|client| known.budget(credential, &client)),
        })
    };
    let consumers = config.consumers.iter().map(own).collect::<Result<_, String>>()?;
    let passthrough = config.passthrough.as_ref().and_then(|p| config.tiers.get(&*p.tier));
    let everyone =
        Terms { asker: Asker { key: 0, weight: 1, priority: Priority::Default }, max_wait: section.max_wait };
    Ok(Budgets {
        mode: section.mode,
        consumers,
        public: everyone,
        passthrough: passthrough.map_or(everyone, |tier| terms(config, 0, tier)),
        settings: common,
        deadline: config.limits.upstream_headers,
        table,
    })
}

fn terms(config: &Config, key: u64, tier: &TierConfig) -> Terms {
    let asker = Asker { key, weight: tier.requests_per_minute, priority: tier.priority };
    Terms { asker, max_wait: tier.max_wait.unwrap_or(config.budget.max_wait) }
}

/// What a credential can make a request be of: a bearer, a client, or one of them.
fn injections(credential: &CredentialConfig) -> (Option<Injection>, Option<Injection>) {
    match &credential.credential.kind {
        Kind::ApiKey { authorization } => (Some(Injection::Bearer(authorization.clone())), None),
        Kind::PlatformClient { id, secret, authorization } => {
            let client = Injection::Client { id: id.clone(), secret: secret.clone() };
            (authorization.clone().map(Injection::Bearer), Some(client))
        }
    }
}

/// What Cal.com grants each credential. One that is configured under several names has the least of what they say.
fn limits(config: &Config) -> HashMap<u128, (u32, bool)> {
    let mut limits = HashMap::new();
    for credential in config.credentials.values() {
        let (bearer, client) = injections(credential);
        for (injection, default) in [(bearer, API_KEY_PER_MINUTE), (client, OAUTH_PER_MINUTE)] {
            let Some(identity) = injection.as_ref().and_then(identity) else { continue };
            let (limit, learn) = (credential.requests_per_minute.unwrap_or(default), credential.learn_limit);
            let known = limits.entry(identity).or_insert((limit, learn));
            *known = (known.0.min(limit), known.1 && learn);
        }
    }
    limits
}

struct Known<'a> {
    limits: HashMap<u128, (u32, bool)>,
    common: Settings,
    table: &'a Table,
}

impl Known<'_> {
    fn budget(&self, credential: &CredentialConfig, injection: &Injection) -> Option<Arc<crate::budget::Budget>> {
        let identity = identity(injection)?;
        let &(limit, learn_limit) = self.limits.get(&identity)?;
        let settings = Settings { learn_limit, ..self.common.of(limit) };
        Some(self.table.configured(identity, &credential.credential.name, settings))
    }
}
