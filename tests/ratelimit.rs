//! Tests of the pure rate-limiting core.

mod backoff;
mod bucket;
mod demand;
mod effective_limit;
mod fair_queue;
mod keyed;
mod other_clients;
mod scope;
mod shared_mode;
mod usage_headers;
