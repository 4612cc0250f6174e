//! Metrics.

mod times;
