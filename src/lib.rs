//! calgate: a rate-limiting, authenticating reverse proxy for the Cal.com API v2.
//!
//! Start reading at [`pipeline`], which is the request path. Its stages, in order:
//!
//! | stage | task |
//! |---|---|
//! | [`identify`] | identifies the caller |
//! | [`catalog`] | finds the operation that the request calls |
//! | [`entitle`] | checks that the plan and the consumer's restriction include the operation |
//! | [`limit`] | charges the caller's bucket |
//! | [`credential`] | selects the Cal.com credential |
//! | [`budget`] | waits until Cal.com's rate limit of the credential allows the request |
//! | [`forward`] | sends the request to Cal.com |
//! | [`respond`] | creates the response for the client |
//! | [`record`] | counts and logs the request once |
//!
//! [`server`] receives the requests. [`serve`] builds the process and is the composition root.

// The request path. rustfmt sorts the modules by name; the table above has their order.
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
// Building blocks, which other modules share.
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
// The process around the request path: configuration, state, background work, commands.
pub mod admin;
pub mod cli;
pub mod config;
pub mod explain;
pub mod gateway;
pub mod refresh;
pub mod serve;
