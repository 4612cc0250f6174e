//! Tests of the configuration: one file per mistake, and the documentation of every key.

mod addresses;
mod bad;
mod documented;
mod environment;
mod good;
