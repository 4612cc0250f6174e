//! The request path as a whole, through the program: what comes in on a socket and what goes out on another.

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
