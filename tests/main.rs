//! All tests, in one binary: modules are named as in `src`, and what goes over a socket goes through the real program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs, reason = "tests")]
#![allow(clippy::format_push_string, reason = "short texts, and no test is about allocations")]

mod catalog;
mod credential;
mod entitle;
mod given;
mod headers;
mod identify;
mod limit;
mod refusal;
mod request_id;
mod respond;
mod secret;
