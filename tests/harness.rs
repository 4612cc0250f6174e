//! Test harness for the real program: the gateway as a process, raw connections to it, and upstreams that send the exact bytes
//! of a test.

mod client;
mod connect_proxy;
mod cpu;
mod fake_limit_store;
mod fleet;
pub mod frame_upstream;
mod gateway;
mod patience;
mod port;
mod postgres;
mod proxy;
mod raw_connection;
mod redis;
mod upstream;

pub use client::client_builder;
pub use connect_proxy::ConnectProxy;
pub use cpu::CpuLimit;
pub use fake_limit_store::FakeLimitStore;
pub use fleet::{Fleet, Tally, Terms};
pub use frame_upstream::FrameUpstream;
pub use gateway::{Gateway, Key, Setup, UPSTREAM_KEY};
pub use patience::{eventually, pass, patience, scaled, time_limit};
pub use port::free_port;
pub use postgres::{PgBouncer, Postgres};
pub use proxy::Proxy;
pub use raw_connection::{RawConnection, Response, connect_with_small_buffer};
pub use redis::{Redis, ReplicatedRedis, Sentinel};
pub use upstream::{OK, ReceivedRequest, Upstream, find};
