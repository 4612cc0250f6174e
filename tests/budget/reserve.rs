//! Slots: requests that wait, requests that leave the queue, and what remains of them.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use calgate::budget::Slot;
use calgate::gateway::Snapshot;
use calgate::limit::Permit;
use calgate::ratelimit::status::BudgetStatus;
use calgate::refusal::Refusal;
use calgate::time::MonoTime;
use http::{HeaderMap, StatusCode};

use crate::given::{caller, code, config, find, snapshot};

const TEXT: &str = "[tiers.roomy]\nrequests_per_minute = 1000000\nmax_wait = \"24h\"\n\
    [credentials.main]\nkind = \"api-key\"\napi_key = { env = \"CARGO_PKG_NAME\" }\nplan = \"teams\"\n\
    requests_per_minute = 4\n\
    [consumers.it]\nkeys = [\"{key:it}\"]\ncredential = \"main\"\ntier = \"roomy\"\n";

fn permit<'a>(snapshot: &'a Snapshot, request: &'a str) -> Permit<'a> {
    let grant = snapshot.entitlements.grant(caller(snapshot, "it"), find(request).unwrap()).unwrap();
    snapshot.rate_limits.charge(grant, MonoTime(1)).1.unwrap()
}

async fn reserve(snapshot: &Snapshot, request: &str, wait: Option<Duration>) -> Result<Slot, Refusal> {
    let permit = permit(snapshot, request);
    let selected = snapshot.credentials.select(permit.grant(), &HeaderMap::new()).unwrap();
    let access = snapshot.credentials.source(selected).obtain(&snapshot.credentials.registry).await.unwrap();
    snapshot.budget.reserve(&permit, &access, wait).await
}

fn now(snapshot: &Snapshot, request: &str) -> Result<Slot, Refusal> {
    runtime().block_on(reserve(snapshot, request, Some(Duration::ZERO)))
}

/// Records a first response without limits. From then on, only the configured limit throttles requests.
fn first_response(snapshot: &Snapshot, request: &str) {
    now(snapshot, request).unwrap().record_response(StatusCode::OK, &HeaderMap::new(), || 0).unwrap();
}

fn standing(snapshot: &Snapshot) -> BudgetStatus {
    snapshot.budget.status_of(snapshot.consumers.find_by_name("it").unwrap().id, None).unwrap().0
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn twenty_thousand_cancelled_requests_leave_nothing_behind() {
    let snapshot = snapshot(TEXT);
    first_response(&snapshot, "GET /v2/me");
    runtime().block_on(async {
        let mut cx = Context::from_waker(Waker::noop());
        let mut held: Vec<Slot> = Vec::new();
        while let Ok(slot) = reserve(&snapshot, "GET /v2/me", Some(Duration::ZERO)).await {
            held.push(slot);
        }
        assert_eq!(held.len(), 3);
        for n in 0..20_000 {
            let mut waits = Box::pin(reserve(&snapshot, "GET /v2/me", None));
            assert!(waits.as_mut().poll(&mut cx).is_pending());
            if n % 10 == 0 {
                // Its turn comes at the moment of the cancellation, or just before.
                held.clear();
                if n % 20 == 0 {
                    match waits.as_mut().poll(&mut cx) {
                        Poll::Ready(slot) => held.push(slot.unwrap()),
                        Poll::Pending => panic!("all places were free: {n} {:?}", standing(&snapshot)),
                    }
                }
            }
            drop(waits);
            tokio::task::yield_now().await;
            while let Ok(slot) = reserve(&snapshot, "GET /v2/me", Some(Duration::ZERO)).await {
                held.push(slot);
            }
        }
        // On a slow machine the first response no longer counts.
        assert!(held.len() >= 3 && standing(&snapshot).in_flight as usize == held.len());
        drop(held);
    });
    let BudgetStatus { used, in_flight, waiting, .. } = standing(&snapshot);
    assert!(used <= 1 && (in_flight, waiting) == (0, 0), "{used}");
}

#[test]
fn only_a_slot_that_was_used_to_send_counts() {
    let snapshot = snapshot(TEXT);
    let mut slot = now(&snapshot, "GET /v2/me").unwrap();
    slot.mark_sent();
    slot.mark_unsent();
    drop(slot);
    assert_eq!(standing(&snapshot).used, 0);
    let mut slot = now(&snapshot, "GET /v2/me").unwrap();
    slot.mark_sent();
    drop(slot);
    assert_eq!((standing(&snapshot).used, standing(&snapshot).in_flight), (1, 0));
}

#[test]
fn a_retry_reserves_a_second_slot_if_the_first_request_may_have_arrived() {
    let snapshot = snapshot(TEXT);
    let mut slot = now(&snapshot, "GET /v2/me").unwrap();
    runtime().block_on(slot.renew()).unwrap();
    assert_eq!(standing(&snapshot).used, 1, "nothing had been written");
    for used in 2..=4 {
        slot.mark_sent();
        runtime().block_on(slot.renew()).unwrap();
        assert_eq!((standing(&snapshot).used, standing(&snapshot).in_flight), (used, 1));
    }
    slot.mark_sent();
    assert_eq!(code(runtime().block_on(slot.renew())), "GATEWAY_UPSTREAM_BUDGET");
    drop(slot);
    assert_eq!((standing(&snapshot).used, standing(&snapshot).in_flight), (4, 0));
}

#[test]
fn a_request_that_may_not_wait_is_refused_at_once_with_the_wait() {
    let snapshot = snapshot(TEXT);
    for _ in 0..4 {
        let mut slot = now(&snapshot, "GET /v2/me").unwrap();
        slot.mark_sent();
        drop(slot);
    }
    let refusal = now(&snapshot, "GET /v2/me").unwrap_err();
    assert_eq!(refusal.code(), "GATEWAY_UPSTREAM_BUDGET");
    let seconds = refusal.public_error().retry_after.unwrap();
    assert!((80..=91).contains(&seconds), "the deadline of a lost request and a window: {seconds}");
}

#[test]
fn operations_that_cal_com_counts_separately_do_not_use_the_main_budget() {
    let snapshot = snapshot(TEXT);
    let apart = "POST /v2/bookings/uid/guests";
    let mut first = now(&snapshot, apart).unwrap();
    assert_eq!(code(now(&snapshot, apart)), "GATEWAY_UPSTREAM_BUDGET", "an answer has to tell of the window first");
    first.record_response(StatusCode::OK, &HeaderMap::new(), || 0).unwrap();
    let slots: Vec<Slot> = (0..4).map(|_| now(&snapshot, apart).unwrap()).collect();
    assert_eq!(code(now(&snapshot, apart)), "GATEWAY_UPSTREAM_BUDGET", "five a minute");
    drop(slots);
    (0..4).for_each(|_| first_response(&snapshot, apart));
    assert_eq!(code(now(&snapshot, apart)), "GATEWAY_UPSTREAM_BUDGET", "five a minute");
    assert_eq!(standing(&snapshot).used, 0);
    assert_eq!(code(now(&snapshot, "GET /v2/me")), "ok");
}

#[test]
fn a_reload_keeps_sent_requests_and_applies_the_new_limit() {
    let before = snapshot(TEXT);
    first_response(&before, "GET /v2/me");
    let slots: Vec<Slot> = (0..2).map(|_| now(&before, "GET /v2/me").unwrap()).collect();
    let text = TEXT.replace("requests_per_minute = 4", "requests_per_minute = 3");
    let after = Snapshot::build(config(&text), Some(&before)).unwrap();
    assert_eq!((standing(&after).limit, standing(&after).used), (3, 3));
    assert_eq!(code(now(&after, "GET /v2/me")), "GATEWAY_UPSTREAM_BUDGET");
    drop(slots);
    assert_eq!(standing(&after).used, 1);
}

#[test]
fn one_secret_under_two_names_is_one_budget_with_the_lower_limit() {
    let two = "[credentials.other]\nkind = \"api-key\"\napi_key = { env = \"CARGO_PKG_NAME\" }\nplan = \"teams\"\n\
        requests_per_minute = 2\n\
        [consumers.second]\nkeys = [\"{key:second}\"]\ncredential = \"other\"\n";
    let snapshot = snapshot(&format!("{TEXT}{two}"));
    assert_eq!(standing(&snapshot).limit, 2);
    let slot = now(&snapshot, "GET /v2/me").unwrap();
    let second = snapshot.consumers.find_by_name("second").unwrap().id;
    assert_eq!(snapshot.budget.status_of(second, None).unwrap().0.used, 1);
    drop(slot);
}

#[test]
fn observe_mode_admits_and_reports_and_off_counts_nothing() {
    let observing = snapshot(&format!("{TEXT}[budget]\nmode = \"observe\"\n"));
    first_response(&observing, "GET /v2/me");
    let slots: Vec<Slot> = (0..6).map(|_| now(&observing, "GET /v2/me").unwrap()).collect();
    let held: Vec<_> = slots.iter().map(|slot| slot.throttled().map(|held| held.by.name())).collect();
    assert_eq!(held, [None, None, None, Some("requests"), Some("requests"), Some("requests")]);
    assert_eq!(standing(&observing).used, 7);
    let off = snapshot(&format!("{TEXT}[budget]\nmode = \"off\"\n"));
    let slots: Vec<Slot> = (0..6).map(|_| now(&off, "GET /v2/me").unwrap()).collect();
    assert_eq!((slots.len(), standing(&off).used), (6, 0));
}

#[test]
fn a_budget_without_waiting_requests_is_freed() {
    let snapshot = snapshot(TEXT);
    let budget =
        snapshot.budget.consumers[snapshot.consumers.find_by_name("it").unwrap().id.index()].bearer.clone().unwrap();
    runtime().block_on(async {
        let mut held: Vec<Slot> = Vec::new();
        while let Ok(slot) = reserve(&snapshot, "GET /v2/me", Some(Duration::ZERO)).await {
            held.push(slot);
        }
        let before = Arc::strong_count(&budget);
        for _ in 0..10 {
            // While the requests in flight have no response, time alone admits none of these.
            let mut waits = [(); 3].map(|()| Box::pin(reserve(&snapshot, "GET /v2/me", None)));
            for waits in &mut waits {
                assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
            tokio::task::yield_now().await;
            assert!(Arc::strong_count(&budget) > before);
            drop(waits);
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            assert_eq!(Arc::strong_count(&budget), before);
        }
    });
}
