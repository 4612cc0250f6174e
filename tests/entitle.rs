//! May they: plans over all operations, narrowing, observe mode, what no plan gives.

mod credential_operations;
pub(crate) mod decisions;
mod plan;
mod restriction;
mod unknown;
