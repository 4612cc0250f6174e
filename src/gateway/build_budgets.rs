//! Builds the budgets of a configuration.

use std::collections::HashMap;
use std::sync::Arc;

use crate::budget::{
    API_KEY_PER_MINUTE, BudgetRegistry, Budgets, ConsumerBudgets, CredentialBudget, OAUTH_PER_MINUTE, identity,
};
use crate::config::Config;
use crate::config::consumers::ConsumerConfig;
use crate::config::credentials::CredentialConfig;
use crate::credential::{ApiKey, AuthHeaders, Credential, Kind};
use crate::gateway::Snapshot;
use crate::gateway::build::unresolved_reference;
use crate::gateway::tiers::Tiers;
use crate::identify::credential_hash;
use crate::limit::hash_tag;
use crate::limit_store::LimitStoreClient;
use crate::ratelimit::Settings;
use crate::ratelimit::usage_headers::name_hash;

/// Builds the budgets of a configuration, in the registry of `previous`.
pub(super) fn budgets(
    config: &Config,
    tiers: &Tiers,
    previous: Option<&Snapshot>,
    store: Option<&Arc<LimitStoreClient>>,
) -> Result<Budgets, String> {
    let section = &config.budget;
    let common = Settings { limit: 1, window: section.window, replicas: section.expected_replicas, learn_limit: false };
    let deadline = config.upstream.response_within(&config.limits);
    let new_table = || {
        let store = store.map(|store| (store.clone(), deadline));
        Arc::new(BudgetRegistry::new(config.limits.tracked_callers, common.of(API_KEY_PER_MINUTE), store))
    };
    let registry = previous.map_or_else(new_table, |snapshot| snapshot.budget.registry.clone());
    let known = BudgetLookup { limits: limits_by_identity(config), common, registry: &registry };
    let own = |consumer: &ConsumerConfig| {
        let credential = config.credentials.get(&*consumer.credential).ok_or_else(|| unresolved_reference(consumer))?;
        let [bearer, client] = identities(&credential.credential);
        Ok(ConsumerBudgets {
            flow_key: name_hash(&consumer.name),
            tier: tiers.of_consumer(consumer)?.clone(),
            credential: credential.credential.name.clone(),
            bearer: bearer.and_then(|(identity, _)| known.budget(credential, identity)),
            client: client.and_then(|(identity, _)| known.budget(credential, identity)),
            managed_user_requests_per_minute: credential
                .credential
                .managed()
                .map_or(OAUTH_PER_MINUTE, |managed| managed.requests_per_minute),
        })
    };
    let consumers = config.consumers.iter().map(own).collect::<Result<_, String>>()?;
    Ok(Budgets {
        mode: section.mode,
        consumers,
        public: tiers.public.clone(),
        passthrough: tiers.passthrough.as_ref().unwrap_or(&tiers.public).clone(),
        settings: common,
        deadline: config.limits.upstream_headers,
        registry,
    })
}

/// Returns the identities by which Cal.com counts a credential's requests, its bearer and its client, and the default limit
/// of each. An OAuth grant is counted by the credential's name: Cal.com counts each of its tokens separately, and counting
/// them together grants no more.
fn identities(credential: &Credential) -> [Option<(u128, u32)>; 2] {
    let key = |key: &ApiKey| Some((identity(&AuthHeaders::Bearer(key.authorization.clone()))?, API_KEY_PER_MINUTE));
    match &credential.kind {
        Kind::ApiKey(own) => [key(own), None],
        Kind::OAuth(_) => [Some((credential_hash(&["oauth", &credential.name]), OAUTH_PER_MINUTE)), None],
        Kind::PlatformClient(client) => {
            let (id, secret) = (client.id.clone(), client.secret.clone());
            let of_client = identity(&AuthHeaders::Client { id, secret }).map(|identity| (identity, OAUTH_PER_MINUTE));
            [client.api_key.as_ref().and_then(key), of_client]
        }
    }
}

/// Returns the hash tag by which gateways share the limits of a credential.
pub(super) fn hash_tag_of(credential: &CredentialConfig) -> Option<Arc<str>> {
    let [bearer, client] = identities(&credential.credential);
    bearer.or(client).map(|(identity, _)| hash_tag(identity))
}

/// Returns the limit of each identity. If several credentials share one, the lowest limit counts.
fn limits_by_identity(config: &Config) -> HashMap<u128, (u32, bool)> {
    let mut limits = HashMap::new();
    for credential in config.credentials.values() {
        for (identity, default) in identities(&credential.credential).into_iter().flatten() {
            let (limit, learn) = (credential.requests_per_minute.unwrap_or(default), credential.learn_limit);
            let known = limits.entry(identity).or_insert((limit, learn));
            *known = (known.0.min(limit), known.1 && learn);
        }
    }
    limits
}

struct BudgetLookup<'a> {
    limits: HashMap<u128, (u32, bool)>,
    common: Settings,
    registry: &'a BudgetRegistry,
}

impl BudgetLookup<'_> {
    fn budget(&self, credential: &CredentialConfig, identity: u128) -> Option<Arc<CredentialBudget>> {
        let &(limit, learn_limit) = self.limits.get(&identity)?;
        let settings = Settings { learn_limit, ..self.common.of(limit) };
        let tag = hash_tag_of(credential)?;
        Some(self.registry.configured(identity, &tag, &credential.credential.name, settings))
    }
}
