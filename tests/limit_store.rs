//! Limits that several gateways share. Each test that needs a Redis server starts its own.

mod agreement;
mod alone;
mod announced;
mod bucket_agreement;
mod buckets;
mod circuit_breaker;
mod connection;
mod faults;
mod fleet;
mod goodbye;
mod parts;
mod peers;
mod replies;
mod scripts;
mod stalls;
mod uncommitted;

use std::time::Instant;

use crate::harness::{Fleet, eventually};

/// Waits until every gateway has joined the store and knows all others.
fn wait_for_joins(fleet: &Fleet) {
    let count = fleet.gateways.len() as u64;
    eventually("all gateways on the store", || {
        let knows = |gateway: &crate::harness::Gateway| gateway.metric("calgate_sharing_gateways", "") == count;
        fleet.gateways.iter().all(knows).then_some(())
    });
}

/// Checks that all gateways together admit 40 requests of a consumer, and one more in each 1.5 s that this takes. The consumer
/// has 40 requests a minute, and `on_loss` is "closed".
fn check_forty_are_shared(fleet: &Fleet) {
    wait_for_joins(fleet);
    let start = Instant::now();
    let ask_until_refused = |gateway| {
        let (mut passed, mut late) = (0, 0);
        loop {
            match fleet.ask(gateway) {
                (200, _) => passed += 1,
                (429, code) if code == "GATEWAY_RATE_LIMITED" => return (passed, late),
                // A late reply rejects the request, and may have charged its token.
                (503, code) if code == "GATEWAY_STORE_LOST" => late += 1,
                other => panic!("{other:?}"),
            }
        }
    };
    let counts = std::thread::scope(|scope| {
        let gateways = 0..fleet.gateways.len();
        let threads: Vec<_> = gateways.map(|gateway| scope.spawn(move || ask_until_refused(gateway))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let (passed, late): (Vec<u128>, Vec<u128>) = counts.into_iter().unzip();
    let (passed, late): (u128, u128) = (passed.iter().sum(), late.iter().sum());
    let returned = start.elapsed().as_millis() / 1500 + 1;
    assert!(passed <= 40 + returned && passed + late >= 40, "{passed} passed, {late} late, {returned} came back");
}

/// Waits until `count` gateways have marked the store unavailable.
fn wait_for_degraded(fleet: &Fleet, count: usize) {
    let start = Instant::now();
    eventually("an unavailable store", || {
        let degraded = fleet.gateways.iter().filter(|g| g.metric("calgate_sharing_degraded", "") == 1).count();
        (degraded == count).then_some(())
    });
    println!("{count} degraded after {:?}", start.elapsed());
}
