//! The budget of a credential: by itself, against the model of Cal.com's limiter, and on the wire.

mod answers;
mod asked;
mod breaker;
mod by_store;
mod counterexamples;
mod edge;
mod foreign;
mod granted;
mod interleavings;
mod listed;
mod operations;
mod queue;
mod reserve;
mod restart;
mod scope;
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
