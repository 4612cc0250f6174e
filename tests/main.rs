//! All tests, in one program. Its modules mirror `src`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::format_push_string,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]
#![expect(clippy::disallowed_methods, reason = "tests read clocks, start tasks and wait for other programs")]

mod architecture;
mod budget;
#[path = "../examples/cal-sim/sim.rs"]
#[allow(dead_code, reason = "the tests and the example program each use a part")]
mod cal_sim;
mod catalog;
mod cli;
mod config;
mod credential;
mod docs;
mod entitle;
mod forward;
mod given;
mod harness;
mod headers;
mod identify;
mod limit;
mod limit_store;
mod pipeline;
mod properties;
mod ratelimit;
mod refusal;
mod request_id;
mod respond;
mod scripts;
mod secret;
mod serve;
mod server;
mod sim;
mod telemetry;
mod time;
mod untrusted;
mod vault;
