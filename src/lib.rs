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
//! `keeper` and `store` stand beside the path: they keep the tokens fresh that `credential` injects.

pub mod server;

pub mod pipeline;

pub mod identify;

pub mod budget;
pub mod catalog;
pub mod credential;
pub mod entitle;
pub mod forward;
pub mod limit;
pub mod record;
pub mod respond;
pub mod sharing;

pub mod keeper;
pub mod store;

pub mod headers;
pub mod refusal;
pub mod request_id;
pub mod secret;

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod explain;
pub mod telemetry;
