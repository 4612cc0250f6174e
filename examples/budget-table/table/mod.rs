//! The simulation and its claims. The tests run a part of it.

pub mod cell;
pub mod claims;
pub mod gateway;
pub mod random;
pub mod shared;
pub mod simulation;

#[path = "../../cal-sim/sim/limiter.rs"]
pub mod limiter;
