//! Rows about a credential that another program uses, too: how often Cal.com blocks it, over many simulated hours.

use super::HOUR;
use super::table::cell::{Cell, Load};
use super::table::claims::broken;
use super::table::gateway::Policy;
use super::table::simulation::run;

/// Simulated hours of each case and load, 24.
const HOURS: u64 = 24;

/// Minimum ratio of hours without a block to hours with one, for a single gateway.
const FREE_FOR_EACH_BLOCKED: u32 = 5;

/// Loads that use the whole limit, so that no capacity is left by chance.
const LOADS: [Load; 2] = [Load::Poisson(300), Load::HeavyAndLight];

/// Results of the hours of a case.
#[derive(Default)]
struct Hours {
    /// Hours without a block.
    none: u32,
    /// Hours with one block.
    one: u32,
    more: u32,
    /// Hours in which the other client prolonged a window.
    prolonged: u32,
    used: f64,
}

/// Prints all rows. Returns the claims that do not hold.
pub(super) fn rows() -> Vec<String> {
    println!("\n| gateways | N | quirk | hours without a block | with one | with more | others prolonged in | of N |");
    println!("|--:|--:|---|--:|--:|--:|--:|--:|");
    let mut faults = Vec::new();
    for gateways in [1, 3, 10] {
        for limit in [120, 200, 500, 800] {
            for quirk in [false, true] {
                let Hours { none, one, more, prolonged, used } = hours(gateways, limit, quirk, &mut faults);
                if gateways == 1 && none < (one + more) * FREE_FOR_EACH_BLOCKED {
                    faults.push(format!("1 gateway, N = {limit}, quirk {quirk}: {none} hours without a block"));
                }
                let used = used * 100.0 / f64::from(none + one + more);
                let quirk = if quirk { "yes" } else { "no" };
                println!("| {gateways} | {limit} | {quirk} | {none} | {one} | {more} | {prolonged} | {used:.1} % |");
            }
        }
    }
    faults
}

fn hours(gateways: u32, limit: u32, quirk: bool, faults: &mut Vec<String>) -> Hours {
    let mut hours = Hours::default();
    for load in LOADS {
        for hour in 1..=HOURS {
            let cell = Cell { gateways, limit, load, quirk, foreign: 20, seconds: HOUR, warm_up: 0, hour };
            let outcome = run(&cell, Policy::Budget);
            match outcome.blocks {
                0 => hours.none += 1,
                1 => hours.one += 1,
                _ => hours.more += 1,
            }
            hours.prolonged += u32::from(outcome.prolonged_by_others > 0);
            hours.used += outcome.used;
            faults.extend(
                broken(&cell, false, &outcome).into_iter().map(|fault| format!("{cell}, hour {hour}: {fault}")),
            );
        }
    }
    hours
}
