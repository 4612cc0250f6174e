//! Tests of metrics.

mod times;
