//! Simulates an hour of Cal.com's rate limiter against calgate's budget, a token bucket and a request spacer. Then simulates many
//! hours of calgate with another program on the same credential (`cargo run --release --example budget-table`).
//!
//! With `-- --store redis`, it starts a redis-server and prints the same for gateways that share it. With `-- --svg FILE`, it
//! only draws one hour, the picture in `docs/budget.md`.
//!
//! `benches/budget-table.md` contains the output. The exit code is 1 if a claim of that page does not hold.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is what it is for")]
#![expect(clippy::disallowed_methods, reason = "it waits for a redis-server to start")]

#[allow(dead_code, unreachable_pub, clippy::indexing_slicing, reason = "the program and the tests each use a part")]
mod table;

mod others;
mod picture;
mod store;

use std::process::ExitCode;

use table::cell::{Cell, Load};
use table::claims::broken;
use table::gateway::Policy;
use table::simulation::{Outcome, run};

const HOUR: u64 = 3600;

fn main() -> ExitCode {
    if let [option, file] = &*std::env::args().skip(1).collect::<Vec<_>>()
        && option == "--svg"
    {
        return match std::fs::write(file, picture::draw()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(fault) => {
                eprintln!("{file} cannot be written: {fault}");
                ExitCode::FAILURE
            }
        };
    }
    println!(
        "| gateways | N | load | quirk | others | calgate: 429s | of N | served | light | p99 | spread | bucket: 429s | of N | spacer: 429s | of N |"
    );
    println!("|--:|--:|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let mut faults = Vec::new();
    for cell in cells() {
        let outcome = run(&cell, Policy::Budget);
        let others = [Policy::Bucket, Policy::Spacer].map(|policy| run(&cell, policy));
        print_row(&cell, &outcome, &others);
        faults.extend(broken(&cell, false, &outcome).into_iter().map(|fault| format!("{cell}: {fault}")));
    }
    faults.extend(others::rows());
    if std::env::args().skip(1).eq(["--store", "redis"]) {
        match store::rows() {
            Ok(more) => faults.extend(more),
            Err(fault) => faults.push(format!("the store: {fault}")),
        }
    }
    for fault in &faults {
        println!("\nNOT HELD: {fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Returns the cases that the claims cover.
fn cells() -> Vec<Cell> {
    let loads = [Load::Poisson(50), Load::Poisson(100), Load::Poisson(300), Load::Bursts, Load::HeavyAndLight];
    let mut cells = Vec::new();
    for gateways in [1, 3, 10] {
        for limit in [120, 200, 500, 800] {
            for load in loads {
                for quirk in [false, true] {
                    cells.push(Cell { gateways, limit, load, quirk, foreign: 0, seconds: HOUR, warm_up: 0, hour: 0 });
                }
            }
            for load in [Load::Poisson(50), Load::Poisson(300), Load::HeavyAndLight] {
                for quirk in [false, true] {
                    cells.push(Cell { gateways, limit, load, quirk, foreign: 20, seconds: HOUR, warm_up: 0, hour: 0 });
                }
            }
        }
    }
    cells
}

fn print_row(cell: &Cell, outcome: &Outcome, others: &[Outcome]) {
    let Cell { gateways, limit, load, quirk, foreign, .. } = cell;
    let light = outcome.light_served.map_or("–".to_owned(), |part| format!("{:.1} %", part * 100.0));
    let p99 = outcome.light_p99.map_or("–".to_owned(), |wait| format!("{:.1} s", wait.as_secs_f64()));
    let spread = outcome.spread.map_or("–".to_owned(), |part| format!("{:.1} %", part * 100.0));
    print!(
        "| {gateways} | {limit} | {load} | {} | {} | {} | {:.1} % | {:.1} % | {light} | {p99} | {spread} |",
        if *quirk { "yes" } else { "no" },
        if *foreign > 0 { format!("{foreign} %") } else { "–".to_owned() },
        outcome.refused_and_blocks(),
        outcome.used * 100.0,
        outcome.served * 100.0,
    );
    for other in others {
        print!(" {} | {:.1} % |", other.refused, other.used * 100.0);
    }
    println!();
}
