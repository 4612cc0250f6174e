//! Tests of the commands: output and exit codes.

mod catalog;
mod check;
mod explain;
mod serve;
