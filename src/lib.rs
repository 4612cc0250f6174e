//! calgate: a rate-limiting, authenticating reverse proxy for the Cal.com API v2.
pub mod catalog;
pub mod entitle;
pub mod identify;
pub mod refusal;
