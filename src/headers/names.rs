//! Names of header fields that the `http` crate does not define.

use http::header::HeaderName;

/// Version of an operation (FACTS §4).
pub const API_VERSION: HeaderName = HeaderName::from_static("cal-api-version");

/// Id of a platform client (FACTS §1).
pub const CLIENT_ID: HeaderName = HeaderName::from_static("x-cal-client-id");
/// Secret of a platform client (FACTS §1).
pub const SECRET_KEY: HeaderName = HeaderName::from_static("x-cal-secret-key");

/// Gateway key outside of `Authorization`.
pub const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Longest time that a client waits for its credential's budget.
pub const MAX_WAIT: HeaderName = HeaderName::from_static("x-calgate-max-wait");

/// Request id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Managed user for whom a request is sent. calgate does not forward it.
pub const MANAGED_USER: HeaderName = HeaderName::from_static("x-calgate-managed-user");

/// Code of a refusal. No response of Cal.com has it.
pub const CODE: HeaderName = HeaderName::from_static("x-calgate-code");

/// Hint of the gateway about an error of Cal.com.
pub const HINT: HeaderName = HeaderName::from_static("x-calgate-hint");

/// Capacity of the caller's bucket, with Cal.com's name (FACTS §2).
pub const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-default");
/// Tokens left in the bucket.
pub const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-default");
/// Seconds until the bucket is full.
pub const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-default");
/// Quota (draft-ietf-httpapi-ratelimit-headers-10).
pub const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// State of the bucket (the same draft).
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// All fields that report the state of a bucket.
pub static RATE_LIMIT_FIELDS: [HeaderName; 5] = [LIMIT, REMAINING, RESET, POLICY, RATE_LIMIT];
