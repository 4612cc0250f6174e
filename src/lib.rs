//! calgate: a rate-limiting, authenticating reverse proxy for the Cal.com API v2.
//!
//! The modules stand in the order of the request path; `pipeline` is the path itself, and the place to begin reading.
//!
//! ```text
//! accept → identify → catalog → entitle → limit → credential → budget → forward → respond / record
//! server   who asks?  what for?  may they? may they  as whom?    may that   ask       answer,
//!                                          now?                  one now?   Cal.com   count once
//! ```
//!
//! Beside the path, `keeper` and `store` keep the tokens fresh that `credential` injects, and `sharing` is where several
//! gateways have their buckets and budgets in common.

// The request path, in its order.
pub mod budget;
pub mod catalog;
pub mod credential;
pub mod entitle;
pub mod forward;
pub mod identify;
pub mod limit;
pub mod pipeline;
pub mod record;
pub mod respond;
pub mod server;
// Building blocks of several stages.
pub mod foreign;
pub mod headers;
pub mod memory;
pub mod prehashed;
pub mod random;
pub mod ratelimit;
pub mod refusal;
pub mod request_id;
pub mod secret;
pub mod time;
pub mod tls;
// Around the path.
pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod explain;
pub mod keeper;
pub mod serve;
pub mod sharing;
pub mod store;
pub mod telemetry;
