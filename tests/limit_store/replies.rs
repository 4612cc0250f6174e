//! Replies that a real server gives only by chance: late, lost, or from a store that does not know the gateway.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use calgate::budget::Slot;
use calgate::gateway::Snapshot;
use calgate::limit_store::{Acquired, FailureMode, LimitStoreClient};
use calgate::refusal::Refusal;
use calgate::time::MonoTime;
use http::HeaderMap;

use crate::given::{caller, code, config, find};
use crate::harness::{FakeLimitStore, eventually};

/// One consumer, whose bucket and budget a call decides together.
const TEXT: &str = "[consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"unrestricted\"\n";

const GO: Acquired = Acquired::Go { ahead: Some(Duration::from_millis(500)), by: None };

/// A gateway whose store is a fake.
struct Rig {
    store: Arc<FakeLimitStore>,
    client: Arc<LimitStoreClient>,
    snapshot: Snapshot,
}

impl Rig {
    /// Starts a gateway that gives the store `timeout` for a reply, and waits until it has joined.
    fn start(failure_mode: FailureMode, timeout: Duration) -> Self {
        let store = Arc::new(FakeLimitStore::default());
        let client = Arc::new(LimitStoreClient::new(store.clone(), failure_mode, timeout));
        client.start(Duration::ZERO).unwrap();
        let snapshot = Snapshot::build_with_store(config(TEXT), None, Some(client.clone())).unwrap();
        snapshot.budget.registry.start();
        eventually("all budgets joined", || store.has_joined().then_some(()));
        Self { store, client, snapshot }
    }

    /// Waits until the client has counted `count` failed calls.
    fn wait_for_failures(&self, count: u64) {
        eventually("a failed call", || (self.client.stats().failures >= count).then_some(()));
    }

    /// Reserves a slot for one request of the consumer, while `replies` runs.
    fn reserve(&self, replies: impl FnOnce()) -> Result<Slot, Refusal> {
        std::thread::scope(|scope| {
            let reserved = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(reserve(&self.snapshot))
            });
            replies();
            reserved.join().unwrap()
        })
    }

    /// Waits until the gateway has withdrawn a request from the store.
    fn wait_for_withdrawal(&self, request: u64) {
        eventually("a withdrawn request", || self.store.settled.lock().contains(&(request, true)).then_some(()));
    }
}

async fn reserve(snapshot: &Snapshot) -> Result<Slot, Refusal> {
    let grant = snapshot.entitlements.grant(caller(snapshot, "it"), find("GET /v2/me").unwrap()).unwrap();
    let permit = snapshot.rate_limits.charge(grant, MonoTime(1)).1.unwrap();
    let selected = snapshot.credentials.select(permit.grant(), &HeaderMap::new()).unwrap();
    let access = snapshot.credentials.source(selected).obtain(&snapshot.credentials.registry).await.unwrap();
    snapshot.budget.reserve(&permit, &access, Some(Duration::from_secs(30))).await
}

#[test]
fn uses_a_late_permission() {
    let rig = Rig::start(FailureMode::Closed, Duration::from_millis(500));
    let reserved = rig.reserve(|| {
        let call = rig.store.next_acquire();
        assert!(call.has_charge, "one call charges the bucket and asks the budget");
        rig.wait_for_failures(1);
        call.reply(GO);
    });
    assert_eq!(code(reserved), "ok");
    assert_eq!(rig.client.stats().losses, 0);
}

#[test]
fn obeys_a_late_rejection() {
    let rig = Rig::start(FailureMode::Local, Duration::from_millis(500));
    let reserved = rig.reserve(|| {
        let call = rig.store.next_acquire();
        rig.wait_for_failures(1);
        call.reply(Acquired::Empty { ahead: Duration::from_secs(60) });
    });
    assert_eq!(code(reserved), "GATEWAY_RATE_LIMITED", "the local copy of the bucket is full, and is not used");
    assert!(rig.store.reports.lock().is_empty());
}

#[test]
fn charges_locally_once_after_a_lost_reply_and_asks_again() {
    let rig = Rig::start(FailureMode::Local, Duration::from_millis(100));
    let mut lost = None;
    let reserved = rig.reserve(|| {
        let first = rig.store.next_acquire();
        let second = rig.store.next_acquire();
        assert!(first.has_charge && !second.has_charge, "the bucket is charged once");
        assert_ne!(first.request.request, second.request.request);
        second.reply(GO);
        lost = Some(first);
    });
    assert_eq!(code(reserved), "ok");
    rig.wait_for_withdrawal(lost.unwrap().request.request);
    eventually("a report", || (rig.store.reports.lock().len() == 1).then_some(()));
    assert!(rig.store.reports.lock()[0].key.contains(":bucket:it"));
}

#[test]
fn rejects_a_request_after_a_lost_reply_if_the_mode_is_closed() {
    let rig = Rig::start(FailureMode::Closed, Duration::from_millis(100));
    let mut lost = None;
    let reserved = rig.reserve(|| lost = Some(rig.store.next_acquire()));
    assert_eq!(code(reserved), "GATEWAY_STORE_LOST");
    rig.wait_for_withdrawal(lost.unwrap().request.request);
    assert!(rig.store.reports.lock().is_empty());
}

#[test]
fn joins_again_when_the_store_does_not_know_the_gateway() {
    let rig = Rig::start(FailureMode::Closed, Duration::from_millis(500));
    let reserved = rig.reserve(|| {
        let first = rig.store.next_acquire();
        let times = first.times;
        first.reply(Acquired::UnknownMember);
        let second = rig.store.next_acquire();
        assert_eq!(second.times, times + 1);
        let charges = rig.store.charges.load(Ordering::Relaxed) + u32::from(second.has_charge);
        assert_eq!(charges, 1, "the first call charged nothing");
        second.reply(GO);
    });
    assert_eq!(code(reserved), "ok");
}

#[test]
fn replays_requests_in_flight_after_a_loss() {
    let rig = Rig::start(FailureMode::Local, Duration::from_millis(500));
    let mut request = 0;
    let slot = rig.reserve(|| {
        let call = rig.store.next_acquire();
        request = call.request.request;
        call.reply(GO);
    });
    let slot = slot.unwrap();
    rig.store.set_down(true);
    eventually("an open circuit breaker", || (!rig.client.is_available()).then_some(()));
    assert!(rig.store.disconnects.load(Ordering::Relaxed) > 0);
    rig.store.set_down(false);
    let is_replayed = |joins: &[Vec<calgate::limit_store::ReplayedRequest>]| {
        joins.iter().flatten().any(|one| one.request == request && one.in_flight)
    };
    eventually("a replayed request", || is_replayed(&rig.store.joins.lock()).then_some(()));
    drop(slot);
}
