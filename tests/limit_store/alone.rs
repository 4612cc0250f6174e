//! Budgets that are first used while the store is unavailable. The gateway uses the number of gateways on its other budgets.

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

/// Starts a gateway on the store.
fn start_gateway(redis: &Redis) -> (Snapshot, Arc<LimitStoreClient>) {
    let snapshot = snapshot(&format!("{TEXT}[limit_store]\nredis = \"{}\"\n", redis.url()));
    let store = snapshot.limit_store.clone().unwrap();
    store.start(Duration::ZERO).unwrap();
    snapshot.budget.registry.start();
    (snapshot, store)
}

/// Reserves a slot for an operation with a limit of its own, five a minute.
async fn reserve(snapshot: &Snapshot, wait: Duration) -> Result<Slot, Refusal> {
    let grant =
        snapshot.entitlements.grant(caller(snapshot, "it"), find("POST /v2/bookings/uid/guests").unwrap()).unwrap();
    let permit = snapshot.rate_limits.charge(grant, MonoTime(1)).1.unwrap();
    let selected = snapshot.credentials.select(permit.grant(), &HeaderMap::new()).unwrap();
    let access = snapshot.credentials.source(selected).obtain(&snapshot.credentials.registry).await.unwrap();
    snapshot.budget.reserve(&permit, &access, Some(wait)).await
}

#[test]
fn one_of_two_gateways_sends_its_share_at_most() {
    let mut redis = Redis::start();
    let gateways = [start_gateway(&redis), start_gateway(&redis)];
    for (_, store) in &gateways {
        eventually("both gateways counted", || (store.gateways() == 2).then_some(()));
    }
    redis.kill();
    let (snapshot, store) = &gateways[0];
    eventually("an unavailable store", || (!store.is_available()).then_some(()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let first = reserve(snapshot, Duration::from_secs(10)).await.unwrap();
        // The first response shows Cal.com's window, so the second request waits for it.
        assert_eq!(code(reserve(snapshot, Duration::ZERO).await), "GATEWAY_UPSTREAM_BUDGET");
        drop(first);
    });
}
