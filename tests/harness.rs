//! What tests need to run the real program: the gateway as a process, raw connections to it, and an upstream that
//! answers byte for byte what a test tells it to.

pub mod edge;
mod fleet;
mod gateway;
mod postgres;
mod proxy;
mod redis;
mod upstream;
mod wire;

pub use edge::Edge;
pub use fleet::{Fleet, Tally, Terms};
pub use gateway::{Gateway, Key, Setup, UPSTREAM_KEY};
pub use postgres::Postgres;
pub use proxy::Proxy;
pub use redis::{Redis, Watched, free_port};
pub use upstream::{Asked, OK, Upstream};
pub use wire::{Answer, Wire, narrow};

use std::time::{Duration, Instant};

/// How long a test waits for what has to happen before it fails. Nothing is right or wrong by how long it took.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `ready` answers.
pub fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "{what} did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
