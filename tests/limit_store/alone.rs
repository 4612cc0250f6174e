//! Budgets that are first used while the store is lost: this gateway is one of those that it has heard of for others.

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

/// A gateway on the store.
fn on(redis: &Redis) -> (Snapshot, Arc<LimitStoreClient>) {
    let snapshot = snapshot(&format!("{TEXT}[limit_store]\nredis = \"{}\"\n", redis.url()));
    let store = snapshot.limit_store.clone().unwrap();
    store.start(Duration::ZERO).unwrap();
    snapshot.budget.registry.start();
    (snapshot, store)
}

/// An operation that Cal.com counts apart: five a minute.
async fn reserve(snapshot: &Snapshot, wait: Duration) -> Result<Slot, Refusal> {
    let grant =
        snapshot.entitlements.grant(caller(snapshot, "it"), find("POST /v2/bookings/uid/guests").unwrap()).unwrap();
    let permit = snapshot.rate_limits.charge(grant, MonoTime(1)).1.unwrap();
    let selected = snapshot.credentials.select(permit.grant(), &HeaderMap::new()).unwrap();
    let access = snapshot.credentials.source(selected).obtain(&snapshot.credentials.registry).await.unwrap();
    snapshot.budget.reserve(&permit, &access, Some(wait)).await
}

#[test]
fn one_of_two_gateways_sends_no_more_than_one_of_two_may() {
    let mut redis = Redis::start();
    let gateways = [on(&redis), on(&redis)];
    for (_, store) in &gateways {
        eventually("both gateways heard", || (store.gateways() == 2).then_some(()));
    }
    redis.kill();
    let (snapshot, store) = &gateways[0];
    eventually("the store given up", || (!store.is_available()).then_some(()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let first = reserve(snapshot, Duration::from_secs(10)).await.unwrap();
        // It waits for the first answer, as any gateway does.
        assert_eq!(code(reserve(snapshot, Duration::ZERO).await), "GATEWAY_UPSTREAM_BUDGET");
        drop(first);
    });
}
