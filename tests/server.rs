//! Tests of connections, their limits and timeouts, through the program.

mod connections;
mod endings;
mod framing;
mod half_close;
mod http2;
mod http2_requests;
mod memory;
