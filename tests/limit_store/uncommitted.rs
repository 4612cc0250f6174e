//! Requests that a budget admits and that are not sent: their bucket is empty, or their caller disconnects during the call to
//! the store. Their places in the budget are free again.

use std::future::Future as _;
use std::task::{Context, Waker};
use std::time::Duration;

use calgate::budget::Slot;
use calgate::gateway::Snapshot;
use calgate::ratelimit::status::BudgetStatus;
use calgate::refusal::Refusal;
use calgate::time::MonoTime;
use http::HeaderMap;

use crate::given::{PEER, code, find, now, snapshot};
use crate::harness::{Redis, eventually, free_port};

/// Creates a gateway's state with a store at `port`.
fn with_store(port: u16, mode: &str) -> Snapshot {
    snapshot(&format!(
        "[budget]\nmode = \"{mode}\"\n\
         [limit_store]\nredis = \"redis://127.0.0.1:{port}\"\non_loss = \"closed\"\n"
    ))
}

/// Reserves a slot for a call without a credential.
async fn reserve(snapshot: &Snapshot) -> Result<Slot, Refusal> {
    let caller = snapshot.consumers.identify(&HeaderMap::new(), PEER, now()).unwrap();
    let grant = snapshot.entitlements.grant(caller, find("GET /v2/slots").unwrap()).unwrap();
    let permit = snapshot.rate_limits.charge(grant, MonoTime(1)).1.unwrap();
    let selected = snapshot.credentials.select(permit.grant(), &HeaderMap::new()).unwrap();
    let access = snapshot.credentials.source(selected).obtain(&snapshot.credentials.registry).await.unwrap();
    snapshot.budget.reserve(&permit, &access, Some(Duration::ZERO)).await
}

fn public_usage(snapshot: &Snapshot) -> (u32, u32) {
    let standings = snapshot.budget.statuses();
    let BudgetStatus { used, in_flight, .. } = standings.iter().find(|(name, ..)| &**name == "(public)").unwrap().2;
    (used, in_flight)
}

#[test]
fn a_request_without_a_token_releases_its_place() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for mode in ["enforce", "observe"] {
        let snapshot = with_store(free_port(), mode);
        for n in 0..10 {
            assert_eq!(code(runtime.block_on(reserve(&snapshot))), "GATEWAY_STORE_LOST", "{mode} {n}");
            assert_eq!(public_usage(&snapshot), (0, 0), "{mode} {n}");
        }
    }
}

#[test]
fn a_request_whose_caller_disconnects_releases_its_place() {
    let redis = Redis::start();
    for mode in ["enforce", "observe"] {
        let snapshot = with_store(redis.port, mode);
        let store = snapshot.limit_store.clone().unwrap();
        store.start(Duration::ZERO).unwrap();
        eventually("an enabled store", || store.is_enabled().then_some(()));
        redis.signal("-STOP");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut cx = Context::from_waker(Waker::noop());
            let mut asks = Box::pin(reserve(&snapshot));
            assert!(asks.as_mut().poll(&mut cx).is_pending());
            assert_eq!(public_usage(&snapshot), (1, 1), "{mode}");
        });
        redis.signal("-CONT");
        assert_eq!(public_usage(&snapshot), (0, 0), "{mode}");
    }
}
