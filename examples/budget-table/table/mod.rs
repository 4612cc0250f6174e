//! The simulation and what is claimed of it. Tests run a part of it, too.

pub mod cell;
pub mod claims;
pub mod gateway;
pub mod random;
pub mod shared;
pub mod simulation;

#[path = "../../cal-sim/sim/limiter.rs"]
pub mod limiter;
