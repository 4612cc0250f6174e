//! The configuration: one bad file for each mistake, and a good one that documents every key.

mod addresses;
mod bad;
mod documented;
mod environment;
mod good;
