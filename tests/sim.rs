//! Tests of the simulated Cal.com: it behaves as FACTS describes.

mod limiter;
mod requests;
mod tokens;
