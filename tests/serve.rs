//! Tests of reload and drain, through the program.

mod drain;
mod reload;
