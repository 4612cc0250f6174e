//! Names of the header fields that calgate reads or writes and the `http` crate does not know.

use http::header::HeaderName;

/// Chooses the version of an operation (FACTS §4).
pub const API_VERSION: HeaderName = HeaderName::from_static("cal-api-version");

/// A platform client's id and, below, its secret (FACTS §1).
pub const CLIENT_ID: HeaderName = HeaderName::from_static("x-cal-client-id");
/// See [`CLIENT_ID`].
pub const SECRET_KEY: HeaderName = HeaderName::from_static("x-cal-secret-key");

/// A gateway key, where it does not come in `Authorization`.
pub const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// How long a caller waits for its credential's budget.
pub const MAX_WAIT: HeaderName = HeaderName::from_static("x-calgate-max-wait");

/// Names a request in every log it passes.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names the managed user for whom a request is sent. It is removed before the request is forwarded.
pub const MANAGED_USER: HeaderName = HeaderName::from_static("x-calgate-managed-user");

/// The code of a refusal. No response of Cal.com has it.
pub const CODE: HeaderName = HeaderName::from_static("x-calgate-code");

/// What the gateway knows about an error response of Cal.com.
pub const HINT: HeaderName = HeaderName::from_static("x-calgate-hint");

/// Requests that a full bucket grants, by Cal.com's name (FACTS §2).
pub const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-default");
/// Requests that are left in the bucket.
pub const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-default");
/// Seconds until the bucket is full.
pub const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-default");
/// The quota, by draft-ietf-httpapi-ratelimit-headers-10.
pub const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// The state of the bucket, by the same draft.
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// All fields that tell how a bucket stands.
pub static RATE_LIMIT_FIELDS: [HeaderName; 5] = [LIMIT, REMAINING, RESET, POLICY, RATE_LIMIT];
