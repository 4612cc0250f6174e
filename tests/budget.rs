//! Budgets: slots, the registry, and the running program against a simulated Cal.com.

mod edge;
mod operations;
mod registry;
mod reserve;
mod restart;
mod used_windows;
mod wire;
