//! Tests of the `limit` stage.

mod take;
