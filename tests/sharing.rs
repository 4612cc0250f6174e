//! Limits that several gateways share. A real server is started and ended by each test that needs one.

mod agreement;
mod alone;
mod boarding;
mod breaker;
mod bucket_agreement;
mod buckets;
mod faults;
mod fleet;
mod gateways;
mod link;
mod scripts;
mod stalls;

use std::time::Instant;

use crate::harness::{Fleet, eventually};

/// Waits until every gateway goes by the store, and knows of all.
fn joined(fleet: &Fleet) {
    let count = fleet.gateways.len() as u64;
    eventually("all gateways on the store", || {
        let knows = |gateway: &crate::harness::Gateway| gateway.metric("calgate_sharing_gateways", "") == count;
        fleet.gateways.iter().all(knows).then_some(())
    });
}

/// Waits until so many gateways have given the store up.
fn degraded(fleet: &Fleet, count: usize) {
    let start = Instant::now();
    eventually("the store given up", || {
        let degraded = fleet.gateways.iter().filter(|g| g.metric("calgate_sharing_degraded", "") == 1).count();
        (degraded == count).then_some(())
    });
    println!("{count} degraded after {:?}", start.elapsed());
}
