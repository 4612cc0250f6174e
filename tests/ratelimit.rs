//! The pure rate limiting: each state machine by itself, and the limiter against the model of Cal.com's limiter.

mod backoff;
mod bucket;
mod counterexamples;
mod demand;
mod effective_limit;
mod fair_queue;
mod interleavings;
mod keyed;
mod other_clients;
mod restored_windows;
mod scope;
mod shared_mode;
mod simulated;
#[path = "../examples/budget-table/table/mod.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "the tests and the example programs each use a part, and both have the model of the limiter"
)]
pub mod table;
mod usage_headers;
