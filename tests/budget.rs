//! The budget of a credential: by itself, against the model of Cal.com's limiter, and on the wire.

mod answers;
mod breaker;
mod granted;
mod interleavings;
mod queue;
mod reserve;
mod simulated;
#[path = "../examples/budget-table/table/mod.rs"]
#[allow(dead_code, reason = "the tests and the example program each use a part")]
mod table;
mod wire;
