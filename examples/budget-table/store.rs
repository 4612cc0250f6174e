//! Rows about gateways that share a limit store, next to those of the same gateways without the store.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::table::cell::{Cell, Load};
use super::table::claims::broken;
use super::table::gateway::Policy;
use super::table::shared::gateways;
use super::table::simulation::{run, run_with};

/// Simulated seconds of a row, 600. Every poll is a call to the server, so an hour would take too long.
const SECONDS: u64 = 600;

/// Prints all rows. Returns the claims that do not hold.
pub(super) fn rows() -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let server = Server::start()?;
    println!(
        "\n| gateways | N | load | quirk | others | shared: 429s | of N | served | light | p99 | store lost: 429s | of N | served | light |"
    );
    println!("|--:|--:|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let mut faults = Vec::new();
    for cell in cells() {
        let shared = run_with(&cell, gateways(&cell, server.port)?);
        let lost = run(&cell, Policy::Budget);
        let percent = |part: f64| format!("{:.1} %", part * 100.0);
        let light = |part: Option<f64>| part.map_or("–".to_owned(), percent);
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            cell.gateways,
            cell.limit,
            cell.load,
            if cell.quirk { "yes" } else { "no" },
            if cell.foreign > 0 { format!("{} %", cell.foreign) } else { "–".to_owned() },
            shared.refused_and_blocks(),
            percent(shared.used),
            percent(shared.served),
            light(shared.light_served),
            shared.light_p99.map_or("–".to_owned(), |wait| format!("{:.1} s", wait.as_secs_f64())),
            lost.refused_and_blocks(),
            percent(lost.used),
            percent(lost.served),
            light(lost.light_served),
        );
        // Gateways with a store must meet the claims for a single gateway. Without a store, the only claim is that they cause no
        // 429.
        faults.extend(broken(&cell, true, &shared).into_iter().map(|fault| format!("{cell}, shared: {fault}")));
        if lost.refused > 0 && cell.foreign == 0 {
            faults.push(format!("{cell}, store lost: {} answers of 429", lost.refused));
        }
    }
    Ok(faults)
}

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for gateways in [3, 10, 50] {
        for limit in [120, 800] {
            let load = Load::Poisson(300);
            let cell = Cell { gateways, limit, load, quirk: false, foreign: 0, seconds: SECONDS, warm_up: 60, hour: 0 };
            for load in [Load::Poisson(100), load, Load::Bursts, Load::HeavyAndLight] {
                cells.extend([false, true].map(|quirk| Cell { load, quirk, ..cell }));
            }
            cells.push(Cell { foreign: 20, ..cell });
        }
    }
    cells
}

/// Redis server of this run, on a free port of this machine.
struct Server {
    port: u16,
    child: Child,
}

impl Server {
    fn start() -> std::io::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()?;
        let server = Self { port, child };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(std::io::Error::other("redis-server does not listen"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
