//! Tests of the upstream budget: alone, against the model of Cal.com's limiter, and through the program.

mod counterexamples;
mod edge;
mod interleavings;
mod listed;
mod operations;
mod reserve;
mod restart;
mod simulated;
#[path = "../examples/budget-table/table/mod.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "the tests and the example programs each use a part, and both have the model of the limiter"
)]
pub mod table;
mod used;
mod wire;
