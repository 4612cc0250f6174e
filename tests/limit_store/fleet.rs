//! Eight gateways, each a process, on one credential and one limit store.

use std::cell::Cell;
use std::time::Duration;

use super::{check_forty_are_shared, wait_for_joins};
use crate::harness::{Fleet, Redis, Tally, Terms, eventually, pass, time_limit};

fn terms(limit: u32, window: Duration) -> Terms {
    Terms { gateways: 8, limit, window, quirk: false, others: 0, config: String::new(), per_minute: 1_000_000 }
}

/// Runs a fleet once. Whatever the machine has time for, Cal.com never answers 429, and every request has a response. Returns the
/// tally, and how often gateways marked the store unavailable.
fn safe(limit: u32, window: Duration, load: impl Fn(&Fleet) -> Tally) -> (Tally, u64) {
    let redis = Redis::start();
    let terms = Terms { quirk: true, ..terms(limit, window) };
    let fleet = Fleet::start(&terms, |_| format!("redis = \"{}\"", redis.url()));
    wait_for_joins(&fleet);
    let tally = load(&fleet);
    println!("{} losses, p99 {:?}, {:?}", fleet.losses(), tally.p99(), tally.answers);
    assert_eq!(fleet.sim.rate_limited(), 0, "{:?}", tally.answers);
    let foreign = tally.answers.keys().find(|(status, code)| *status != 200 && code != "GATEWAY_UPSTREAM_BUDGET");
    assert_eq!(foreign, None, "{:?}", tally.answers);
    (tally, fleet.losses())
}

/// Runs fleets until the machine leaves one undisturbed: a store call that is late switches a gateway to the rules without a
/// store, which use less. Every run is checked as in [`safe`].
fn undisturbed(limit: u32, window: Duration, load: impl Fn(&Fleet) -> Tally) -> Tally {
    let run = |_| Some(safe(limit, window, &load)).filter(|(_, losses)| *losses == 0);
    (0..5).find_map(run).expect("in one of five runs no store call is late; is the machine quiet?").0
}

/// Clients ask for much more than the limit.
fn saturating(fleet: &Fleet, window: Duration, windows: u32, meanwhile: impl FnOnce()) -> Tally {
    fleet.load(32, Duration::ZERO, window * (windows + 1), meanwhile)
}

/// After the first burst, at least 95 % of `windows` windows are used.
fn saturated(limit: u32, window: Duration, windows: u32) -> Tally {
    let used = Cell::new(0);
    let tally = undisturbed(limit, window, |fleet| {
        saturating(fleet, window, windows, || {
            pass(window);
            let before = fleet.sim.seen_count();
            pass(window * windows);
            used.set(fleet.sim.seen_count() - before);
        })
    });
    let (used, granted) = (used.get(), (limit * windows) as usize);
    println!("{used} of {granted}");
    assert!(used * 100 >= granted * 95, "{used} of {granted}; {:?}", tally.answers);
    tally
}

/// Clients ask for nine tenths of the limit, at random moments.
fn nine_tenths(fleet: &Fleet, limit: u32, window: Duration) -> Tally {
    let per_second = f64::from(limit) * 0.9 / window.as_secs_f64();
    fleet.random_load(per_second, window * 4, || {})
}

/// All of nine tenths is served.
fn busy(limit: u32, window: Duration) {
    let tally = undisturbed(limit, window, |fleet| nine_tenths(fleet, limit, window));
    assert_eq!(tally.of(429), 0, "{:?}", tally.answers);
}

#[test]
fn every_gateway_reports_other_clients_of_the_credential() {
    let redis = Redis::start();
    let terms = Terms { gateways: 2, others: 240, ..terms(60, Duration::from_secs(3)) };
    let fleet = Fleet::start(&terms, |_| format!("redis = \"{}\"", redis.url()));
    wait_for_joins(&fleet);
    eventually("others in the metrics", || {
        assert_eq!(fleet.ask(0).0, 200);
        // This gateway has sent nothing, so it knows them from the store.
        (fleet.gateways[1].metric("calgate_budget_foreign", "main") > 0).then_some(())
    });
    assert_eq!(fleet.sim.rate_limited(), 0);
}

#[test]
fn a_block_of_one_gateway_holds_the_others_and_is_logged_once() {
    let redis = Redis::start();
    // Another program uses up the credential faster than gateways can learn of it.
    let terms = Terms { gateways: 2, others: 60_000, ..terms(60, Duration::from_secs(60)) };
    let fleet = Fleet::start(&terms, |_| format!("redis = \"{}\"", redis.url()));
    wait_for_joins(&fleet);
    let held = (429, "GATEWAY_UPSTREAM_BUDGET".to_owned());
    let block = "Cal.com's limiter refused a request";
    assert_eq!(fleet.ask(0).0, 200);
    fleet.sim.advance(Duration::from_secs(1));
    assert_eq!(fleet.ask(0), held);
    let line = fleet.gateways[0].wait_for_log(block);
    assert!(line.contains(r#""level":"WARN""#) && line.contains(r#""credential":"main""#), "{line}");
    // The response does not wait for the report to the store.
    eventually("a report to the store", || redis.cli(&["keys", "calgate:*:flying"]).trim().is_empty().then_some(()));
    let asked = fleet.sim.seen_count();
    assert_eq!(fleet.ask(1), held);
    assert_eq!(fleet.sim.seen_count(), asked, "the block of one gateway holds for the other");
    assert!(!fleet.gateways[1].log().iter().any(|line| line.contains(block)), "nothing is logged twice");
}

const WINDOW: Duration = Duration::from_secs(4);
/// With shorter windows, eight hundred requests saturate the machine.
const LONG_WINDOW: Duration = Duration::from_secs(8);

#[test]
fn a_saturated_credential_is_never_exceeded() {
    safe(120, WINDOW, |fleet| saturating(fleet, WINDOW, 3, || {}));
}

#[test]
fn a_saturated_credential_of_eight_hundred_is_never_exceeded() {
    safe(800, LONG_WINDOW, |fleet| saturating(fleet, LONG_WINDOW, 2, || {}));
}

#[test]
fn a_busy_credential_is_never_exceeded() {
    safe(120, WINDOW, |fleet| nine_tenths(fleet, 120, WINDOW));
}

#[test]
#[ignore = "measures throughput: make test-quiet"]
fn a_saturated_credential_is_used_up() {
    let tally = saturated(120, WINDOW, 4);
    assert!(tally.of(200) * 100 >= 120 * 5 * 95, "{:?}", tally.answers);
}

#[test]
#[ignore = "measures throughput: make test-quiet"]
fn a_saturated_credential_of_eight_hundred_is_used_up() {
    saturated(800, LONG_WINDOW, 2);
}

#[test]
#[ignore = "measures throughput: make test-quiet"]
fn a_busy_credential_serves_everything() {
    busy(120, WINDOW);
}

#[test]
#[ignore = "measures throughput: make test-quiet"]
fn a_busy_credential_of_eight_hundred_serves_everything() {
    busy(800, LONG_WINDOW);
}

#[test]
fn all_gateways_share_the_requests_of_a_consumer() {
    let redis = Redis::start();
    // A gateway that marks the store unavailable is back after these times.
    let headers = time_limit(500);
    let config = format!("mode = \"off\"\n[limits]\nupstream_connect = \"500ms\"\nupstream_headers = \"{headers}\"");
    let terms = Terms { config, per_minute: 40, ..terms(100_000, Duration::from_secs(60)) };
    let fleet = Fleet::start(&terms, |_| format!("on_loss = \"closed\"\nredis = \"{}\"", redis.url()));
    check_forty_are_shared(&fleet);
}
