//! Tests of the request path through the program, from the client socket to the upstream socket.

mod callers;
mod entitlements;
mod further;
mod headers;
mod keyless;
mod leaks;
mod limits;
mod paths;
mod records;
mod versions;
