//! What tests need to run the real program: the gateway as a process, raw connections to it, and an upstream that
//! answers byte for byte what a test tells it to.

mod cpu;
pub mod edge;
mod fleet;
mod gateway;
mod patience;
mod port;
mod postgres;
mod proxy;
mod redis;
mod tunnel;
mod upstream;
mod wire;

pub use cpu::CpuLimit;
pub use edge::Edge;
pub use fleet::{Fleet, Tally, Terms};
pub use gateway::{Gateway, Key, Setup, UPSTREAM_KEY};
pub use patience::{eventually, pass, patience, scaled, time_limit};
pub use port::free_port;
pub use postgres::{PgBouncer, Postgres};
pub use proxy::Proxy;
pub use redis::{Redis, Sentinel, Watched};
pub use tunnel::Tunnel;
pub use upstream::{Asked, OK, Upstream, find};
pub use wire::{Answer, Wire, narrow};
