//! Builds a [`Snapshot`] from a configuration: the only place that creates the stages.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::catalog::{Catalog, EndpointId};
use crate::config::Config;
use crate::config::consumers::{ConsumerConfig, RestrictionLists};
use crate::config::limit_store::LimitStoreConfig;
use crate::credential::{Credential, Credentials, TokenRegistry};
use crate::entitle::{Entitlement, Entitlements, Plan, Restriction};
use crate::forward::Upstream;
use crate::gateway::Snapshot;
use crate::gateway::build_budgets::{budgets, hash_tag_of};
use crate::gateway::tiers::Tiers;
use crate::headers::Cors;
use crate::identify::{ConsumerId, Consumers, KeylessAccess, KnownKey, LeakGuard};
use crate::limit::{ConsumerLimit, DynamicBuckets, Limits};
use crate::limit_store::{LimitStoreClient, RedisLimitStore};
use crate::ratelimit::Bucket;

impl Snapshot {
    /// Builds the state of `config`, and keeps the buckets of `previous`.
    ///
    /// # Errors
    /// The fault of a part that parses but cannot be used, such as the certificate authority of the upstream.
    pub fn build(config: Config, previous: Option<&Snapshot>) -> Result<Self, String> {
        let store = match previous {
            Some(snapshot) => snapshot.limit_store.clone(),
            None => config.limit_store.as_ref().map(limit_store).transpose()?,
        };
        Self::build_with_store(config, previous, store)
    }

    /// Makes the state that `config` describes, with `store` instead of the limit store that it names.
    ///
    /// # Errors
    /// Those of [`Self::build`].
    pub fn build_with_store(
        config: Config,
        previous: Option<&Snapshot>,
        store: Option<Arc<LimitStoreClient>>,
    ) -> Result<Self, String> {
        let made = previous
            .map(|snapshot| &snapshot.upstream)
            .filter(|made| made.is_built_from(&config.upstream, &config.limits));
        let upstream = if let Some(made) = made {
            made.clone()
        } else {
            let known = previous.map(|snapshot| &*snapshot.upstream);
            Arc::new(Upstream::new(&config.upstream, &config.limits, known)?)
        };
        let names = NameTable::of(&config);
        let leaks = leaks(&config);
        let consumers = consumers(&config);
        let consumers = match previous {
            Some(snapshot) => consumers.remember_revoked(&snapshot.consumers),
            None => consumers,
        };
        let registry = previous.map_or_else(Arc::default, |snapshot| snapshot.credentials.registry.clone());
        let credentials = names.credentials(&config, registry)?;
        credentials.register();
        Ok(Self {
            generation: previous.map_or(1, |snapshot| snapshot.generation + 1),
            unknown_endpoints: config.catalog.unknown,
            entitlements: names.entitlements(&config)?,
            rate_limits: names.limits(&config, previous, store.as_ref())?,
            budget: Arc::new(budgets(&config, &names.tiers, previous, store.as_ref())?),
            credentials,
            keyless: KeylessAccess::new(config.listen.hosts, config.listen.cors_origins.clone()),
            leaks,
            consumers,
            upstream,
            trusted_proxies: config.listen.trusted_proxies,
            cors: Cors::new(config.listen.cors_origins, &config.upstream.forward_headers),
            access_log: config.log.access,
            bounds: config.limits,
            limit_store: store,
            own_catalog: config.catalog.custom,
        })
    }
}

/// Creates a client of the configured limit store. It has not connected yet.
fn limit_store(config: &LimitStoreConfig) -> Result<Arc<LimitStoreClient>, String> {
    let LimitStoreConfig { redis, redis_file, kind, ca_file, on_loss, timeout } = config;
    let store = RedisLimitStore::new(redis, redis_file.as_deref(), kind, ca_file.as_deref(), *timeout)?;
    Ok(Arc::new(LimitStoreClient::new(Arc::new(store), *on_loss, *timeout)))
}

/// Builds the search for gateway keys and for the secrets of this configuration.
fn leaks(config: &Config) -> LeakGuard {
    let mut leaks = LeakGuard::new();
    config.credentials.values().for_each(|config| config.credential.kind.with_secrets(|secret| leaks.add(secret)));
    leaks
}

fn consumers(config: &Config) -> Consumers {
    let names = config.consumers.iter().map(|c| c.name.clone()).collect();
    let keys = config.consumers.iter().enumerate().flat_map(|(index, consumer)| {
        let consumer_id = ConsumerId::from_index(index);
        consumer.keys.iter().map(move |&(hash, expires)| KnownKey { hash, consumer: consumer_id, expires })
    });
    let anonymous = config.anonymous.consumer.as_ref();
    let anonymous =
        anonymous.and_then(|name| config.consumers.iter().position(|c| c.name == *name)).map(ConsumerId::from_index);
    Consumers::new(names, keys.collect(), anonymous, config.passthrough.as_ref().map(|p| p.forms))
}

/// Objects that consumers refer to by name. Each is built once.
struct NameTable {
    plans: BTreeMap<String, Arc<Plan>>,
    tiers: Tiers,
    credentials: BTreeMap<String, Arc<Credential>>,
}

impl NameTable {
    fn of(config: &Config) -> Self {
        let catalog = catalog(config);
        let plan = |(name, lists): (&String, &crate::config::plans::PlanLists)| {
            let plan = Plan::compile(name, lists.allow.clone(), lists.deny.clone(), catalog);
            (name.clone(), Arc::new(plan))
        };
        Self {
            plans: config.plans.iter().map(plan).collect(),
            tiers: Tiers::of(config),
            credentials: config.credentials.iter().map(|(name, c)| (name.clone(), c.credential.clone())).collect(),
        }
    }

    fn credentials(&self, config: &Config, registry: Arc<TokenRegistry>) -> Result<Credentials, String> {
        let of =
            |c: &ConsumerConfig| self.credentials.get(&*c.credential).cloned().ok_or_else(|| unresolved_reference(c));
        Ok(Credentials {
            consumers: config.consumers.iter().map(of).collect::<Result<_, _>>()?,
            managed_users: config.consumers.iter().map(|c| c.managed_users.as_deref().map(Arc::from)).collect(),
            registry,
        })
    }

    fn entitlements(&self, config: &Config) -> Result<Entitlements, String> {
        let mut restrictions = RestrictionCache { catalog: catalog(config), made: Vec::new() };
        let nothing: Arc<[usize]> = Arc::default();
        let entitlement = |consumer: &ConsumerConfig| {
            let plan = config.credentials.get(&*consumer.credential).and_then(|c| self.plans.get(&c.plan));
            let operations = consumer.credential_operations.as_slice();
            Ok(Entitlement {
                plan: plan.ok_or_else(|| unresolved_reference(consumer))?.clone(),
                restriction: consumer.restriction.as_deref().map(|lists| restrictions.get(lists)),
                credential_operations: if operations.is_empty() {
                    nothing.clone()
                } else {
                    operations.iter().copied().map(EndpointId::index).collect()
                },
            })
        };
        let consumers = config.consumers.iter().map(entitlement).collect::<Result<_, String>>()?;
        let passthrough = config.passthrough.as_ref().and_then(|passthrough| {
            let plan = self.plans.get(&passthrough.plan)?.clone();
            Some(Entitlement { plan, restriction: None, credential_operations: nothing.clone() })
        });
        Ok(Entitlements::new(config.entitlements, consumers, passthrough))
    }

    fn limits(
        &self,
        config: &Config,
        previous: Option<&Snapshot>,
        store: Option<&Arc<LimitStoreClient>>,
    ) -> Result<Limits, String> {
        let kept: HashMap<&str, &Arc<Bucket>> = previous
            .map(|snapshot| {
                snapshot
                    .consumers
                    .list()
                    .iter()
                    .zip(&snapshot.rate_limits.consumers)
                    .map(|(c, own)| (&*c.name, &own.bucket))
                    .collect()
            })
            .unwrap_or_default();
        let own = |consumer: &ConsumerConfig| {
            let bucket = kept.get(&*consumer.name).map_or_else(Arc::default, |bucket| Arc::clone(bucket));
            let tier = self.tiers.of_consumer(consumer)?.clone();
            let credential =
                config.credentials.get(&*consumer.credential).ok_or_else(|| unresolved_reference(consumer))?;
            let tag = store.and_then(|_| hash_tag_of(credential));
            Ok(ConsumerLimit { tier, bucket, shared_as: tag.map(|tag| (tag, (*consumer.name).into())) })
        };
        Ok(Limits {
            consumers: config.consumers.iter().map(own).collect::<Result<_, String>>()?,
            public: self.tiers.public.clone(),
            passthrough: self.tiers.passthrough.clone(),
            store: store.cloned(),
            expected_replicas: config.budget.expected_replicas,
            dynamic: previous.map_or_else(
                || Arc::new(DynamicBuckets::new(config.limits.tracked_callers)),
                |snapshot| snapshot.rate_limits.dynamic.clone(),
            ),
        })
    }
}

/// A checked configuration has no such consumer. Leaving it out would shift all later consumers in their tables.
pub(super) fn unresolved_reference(consumer: &ConsumerConfig) -> String {
    format!("consumer `{}` refers to something that is not configured", consumer.name)
}

fn catalog(config: &Config) -> &Catalog {
    config.catalog.custom.as_ref().unwrap_or_else(|| Catalog::built_in())
}

/// Compiled restrictions. Consumers with equal lists share one.
struct RestrictionCache<'a> {
    catalog: &'a Catalog,
    made: Vec<(RestrictionLists, Arc<Restriction>)>,
}

impl RestrictionCache<'_> {
    fn get(&mut self, lists: &RestrictionLists) -> Arc<Restriction> {
        if let Some((_, made)) = self.made.iter().find(|(known, _)| known == lists) {
            return made.clone();
        }
        let (tags, methods, endpoints) = (&lists.tags, &lists.methods, &lists.endpoints);
        let made = Restriction::compile(tags.as_deref(), methods.as_deref(), endpoints.as_deref(), self.catalog);
        let made = Arc::new(made);
        self.made.push((lists.clone(), made.clone()));
        made
    }
}
