//! The commands, as a person or a script runs them: what they print, and what they exit with.

mod catalog;
mod check;
mod explain;
mod serve;
