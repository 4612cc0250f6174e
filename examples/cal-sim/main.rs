//! Runs a simulated Cal.com.

#[allow(dead_code, unreachable_pub, reason = "the program and the tests each use a part")]
mod sim;

fn main() {}
