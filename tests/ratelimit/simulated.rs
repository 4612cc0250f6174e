//! A part of the simulation of `cargo run --release --example budget-table`: the same claims, for a quarter of an hour.

use super::table::cell::{Cell, Load};
use super::table::claims::broken;
use super::table::gateway::Policy;
use super::table::simulation::run;

fn cell(gateways: u32, limit: u32, load: Load, quirk: bool) -> Cell {
    Cell { gateways, limit, load, quirk, foreign: 0, seconds: 900, warm_up: 0, hour: 0 }
}

fn check(cells: &[Cell]) {
    for cell in cells {
        let outcome = run(cell, Policy::Budget);
        let broken = broken(cell, false, &outcome);
        assert!(broken.is_empty(), "{cell}: {broken:?}: {outcome:?}");
    }
}

#[test]
fn one_gateway_uses_the_whole_limit_and_causes_no_429() {
    check(&[
        cell(1, 120, Load::Poisson(50), true),
        cell(1, 120, Load::Poisson(300), true),
        cell(1, 200, Load::Poisson(100), true),
        cell(1, 120, Load::HeavyAndLight, true),
        cell(1, 500, Load::Bursts, true),
    ]);
}

#[test]
fn gateways_that_share_nothing_cause_no_429() {
    check(&[
        cell(3, 120, Load::Poisson(300), true),
        cell(3, 500, Load::HeavyAndLight, true),
        cell(3, 120, Load::HeavyAndLight, true),
        cell(10, 500, Load::HeavyAndLight, true),
        cell(10, 120, Load::Poisson(300), true),
        cell(10, 200, Load::Bursts, true),
    ]);
}

#[test]
fn capacity_is_reserved_for_other_clients() {
    for load in [Load::Poisson(50), Load::HeavyAndLight] {
        check(&[Cell { foreign: 20, ..cell(1, 200, load, false) }]);
    }
}

/// Not every run is free of blocks, because the requests of the other program come at random.
#[test]
fn blocks_with_other_clients_are_rare_even_at_full_load() {
    let quarters = (1..=40).map(|hour| Cell { foreign: 20, hour, ..cell(1, 200, Load::Poisson(300), false) });
    let blocked = quarters.filter(|cell| run(cell, Policy::Budget).blocks > 0).count();
    assert!(blocked <= 2, "{blocked} of 40");
}

#[test]
fn a_token_bucket_and_a_spacer_are_blocked_repeatedly() {
    let saturated = cell(1, 120, Load::Poisson(300), false);
    let bucket = run(&saturated, Policy::Bucket);
    assert!(bucket.blocks > 5 && bucket.used < 0.6, "{bucket:?}");
    let three = run(&cell(3, 120, Load::Poisson(300), false), Policy::Spacer);
    assert!(three.blocks > 5 && three.used < 0.6, "{three:?}");
}
