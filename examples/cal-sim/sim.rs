//! A Cal.com API v2 to run against: no account needed. It behaves as Cal.com does, which is not as calgate does.

// Paths are given because the test binary takes this file in from elsewhere.
#[path = "sim/limiter.rs"]
pub mod limiter;
