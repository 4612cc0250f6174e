//! Connections, their limits and deadlines, reload and drain, through the program.

mod connections;
mod drain;
mod endings;
mod framing;
mod half_close;
mod http2;
mod http2_requests;
mod memory;
mod reload;
