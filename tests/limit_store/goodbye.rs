//! Budgets that leave the store while they are unused, and are used again when the store is lost.

use std::sync::Arc;
use std::time::Duration;

use calgate::budget::Slot;
use calgate::gateway::Snapshot;
use calgate::limit_store::LimitStoreClient;
use calgate::refusal::Refusal;
use calgate::time::MonoTime;
use http::HeaderMap;

use crate::given::{caller, code, find, snapshot};
use crate::harness::{Redis, eventually};

const TEXT: &str = "[tiers.roomy]\nrequests_per_minute = 1000000\n\
    [consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"unrestricted\"\ntier = \"roomy\"\n";

fn gateway_on(redis: &Redis) -> (Snapshot, Arc<LimitStoreClient>) {
    let snapshot = snapshot(&format!("{TEXT}[limit_store]\nredis = \"{}\"\n", redis.url()));
    let store = snapshot.limit_store.clone().unwrap();
    store.start(Duration::ZERO).unwrap();
    snapshot.budget.registry.start();
    (snapshot, store)
}

/// Reserves a slot for an operation with a budget of its own. Such a budget leaves the store while it is unused.
async fn reserve(snapshot: &Snapshot, wait: Duration) -> Result<Slot, Refusal> {
    let grant =
        snapshot.entitlements.grant(caller(snapshot, "it"), find("POST /v2/bookings/uid/guests").unwrap()).unwrap();
    let permit = snapshot.rate_limits.charge(grant, MonoTime(1)).1.unwrap();
    let selected = snapshot.credentials.select(permit.grant(), &HeaderMap::new()).unwrap();
    let access = snapshot.credentials.source(selected).obtain(&snapshot.credentials.registry).await.unwrap();
    snapshot.budget.reserve(&permit, &access, Some(wait)).await
}

/// Returns the number of gateways that the store knows, of all budgets together.
fn known_members(redis: &Redis) -> usize {
    let keys = redis.cli(&["KEYS", "*:known"]);
    keys.lines().map(|key| redis.cli(&["ZCARD", key]).trim().parse::<usize>().unwrap()).sum()
}

/// The store keeps no part for a gateway that said goodbye. Other gateways may use all of the limit.
#[test]
fn a_budget_that_left_the_store_sends_nothing_when_the_store_is_lost() {
    let mut redis = Redis::start();
    let (snapshot, store) = gateway_on(&redis);
    eventually("a store that is asked", || store.is_enabled().then_some(()));
    eventually("the memberships of the configured budgets", || (known_members(&redis) > 0).then_some(()));
    let configured = known_members(&redis);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let slot = runtime.block_on(reserve(&snapshot, Duration::from_secs(10))).unwrap();
    assert!(known_members(&redis) > configured, "the operation's budget has joined");
    drop(slot);
    eventually("the goodbye", || (known_members(&redis) == configured).then_some(()));
    redis.kill();
    eventually("the loss of the store", || (!store.is_available()).then_some(()));
    let reserved = runtime.block_on(reserve(&snapshot, Duration::from_secs(1)));
    assert_eq!(code(reserved), "GATEWAY_UPSTREAM_BUDGET");
}
