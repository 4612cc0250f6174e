//! calgate: a rate-limiting, authenticating reverse proxy for the Cal.com API v2.
//!
//! `pipeline` is the request path, and the place to begin reading.
//!
//! ```text
//! accept → identify → catalog → entitle → limit → credential → budget → forward → respond / record
//! server   who asks?  what for?  may they? may they  as whom?    may that   ask       answer,
//!                                          now?                  one now?   Cal.com   count once
//! ```
//!
//! `refresh` renews the tokens that `credential` injects, and `vault` stores them. Several gateways share their buckets and budgets
//! through `limit_store`.

// The request path. rustfmt sorts modules by name; the picture above has their order.
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
pub mod headers;
pub mod limit_store;
pub mod memory;
pub mod prehashed;
pub mod random;
pub mod ratelimit;
pub mod refusal;
pub mod request_id;
pub mod secret;
pub mod telemetry;
pub mod time;
pub mod tls;
pub mod untrusted;
pub mod vault;
// The process around the path.
pub mod admin;
pub mod cli;
pub mod config;
pub mod explain;
pub mod gateway;
pub mod refresh;
pub mod serve;
