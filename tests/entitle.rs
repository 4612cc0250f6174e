//! Entitlements: plans, restrictions, observe mode, credential operations and unknown paths.

mod credential_operations;
pub(crate) mod decisions;
mod plan;
mod restriction;
mod unknown;
