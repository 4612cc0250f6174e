//! Table of refusals: status, code, `Retry-After` and the detail for the log, one row for each.

use std::time::Duration;

use http::StatusCode;

use super::Refusal;
use super::detail::Detail;

/// `Retry-After` of a refusal if nothing tells when the next attempt succeeds.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);

/// Status, code and log detail of a refusal.
pub(super) struct Row<'a> {
    pub(super) status: StatusCode,
    /// The stable code.
    pub(super) code: &'static str,
    /// Time until the next attempt may succeed.
    pub(super) retry_after: Option<Duration>,
    pub(super) detail: Option<Detail<'a>>,
}

impl<'a> Row<'a> {
    fn new(status: StatusCode, code: &'static str) -> Self {
        Self { status, code, retry_after: None, detail: None }
    }

    fn retry(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    fn detail(self, detail: Detail<'a>) -> Self {
        Self { detail: Some(detail), ..self }
    }

    fn text(self, text: &'a str) -> Self {
        self.detail(Detail::Text(text))
    }

    fn limit(self, key: &'static str, value: usize) -> Self {
        self.detail(Detail::Limit { key, value: value as u64 })
    }
}

impl Refusal {
    /// Returns the row of this refusal. A new variant does not compile without one.
    pub(super) fn row(&self) -> Row<'_> {
        use StatusCode as S;
        match self {
            Self::InvalidPath(error) => Row::new(S::BAD_REQUEST, "GATEWAY_BAD_REQUEST").detail(Detail::Path(*error)),
            Self::InvalidHeader(fault) => Row::new(S::BAD_REQUEST, "GATEWAY_BAD_REQUEST").text(fault),
            Self::Leak(leak) => Row::new(S::BAD_REQUEST, "GATEWAY_BAD_REQUEST").detail(Detail::Leak(*leak)),
            Self::InvalidVersion | Self::BodyBroken => Row::new(S::BAD_REQUEST, "GATEWAY_BAD_REQUEST"),
            Self::HostNotAllowed { host } => {
                Row::new(S::MISDIRECTED_REQUEST, "GATEWAY_HOST_NOT_ALLOWED").detail(Detail::Host(host))
            }
            Self::OriginNotAllowed => Row::new(S::FORBIDDEN, "GATEWAY_ORIGIN_NOT_ALLOWED")
                .text("Origin or Sec-Fetch-Site is foreign and not in listen.cors_origins"),
            Self::Unauthenticated(failure) => {
                Row::new(S::UNAUTHORIZED, "GATEWAY_UNAUTHENTICATED").detail(Detail::Auth(failure))
            }
            Self::TooManyFailures { failure, retry_after } => {
                let row = Row::new(S::TOO_MANY_REQUESTS, "GATEWAY_TOO_MANY_FAILURES").retry(*retry_after);
                Row { detail: failure.as_ref().map(Detail::Auth), ..row }
            }
            Self::NotEntitled(rule) => Row::new(S::FORBIDDEN, "GATEWAY_NOT_ENTITLED").detail(Detail::Rule(rule)),
            Self::CredentialOperation => Row::new(S::FORBIDDEN, "GATEWAY_CREDENTIAL_OPERATION"),
            Self::CredentialUnsuitable { .. } => Row::new(S::FORBIDDEN, "GATEWAY_CREDENTIAL_UNSUITABLE"),
            Self::CredentialNeedsLogin { .. } => Row::new(S::SERVICE_UNAVAILABLE, "GATEWAY_CREDENTIAL_NEEDS_LOGIN"),
            Self::CredentialUnavailable { why, retry_after, .. } => {
                Row::new(S::SERVICE_UNAVAILABLE, "GATEWAY_CREDENTIAL_UNAVAILABLE").retry(*retry_after).text(why)
            }
            Self::CredentialRefused { renewed } => {
                let row = Row::new(S::SERVICE_UNAVAILABLE, "GATEWAY_CREDENTIAL_REFUSED");
                if *renewed { row.retry(DEFAULT_RETRY) } else { row }
            }
            Self::UnknownManagedUser => Row::new(S::NOT_FOUND, "GATEWAY_UNKNOWN_MANAGED_USER"),
            Self::ManagedUserNotAllowed => Row::new(S::FORBIDDEN, "GATEWAY_MANAGED_USER_NOT_ALLOWED"),
            Self::TokensUnkept => Row::new(S::FORBIDDEN, "GATEWAY_TOKENS_UNKEPT"),
            Self::UnknownEndpoint { path, .. } => {
                Row::new(S::NOT_FOUND, "GATEWAY_UNKNOWN_ENDPOINT").detail(Detail::UnknownPath(path))
            }
            Self::ApiV1Gone => Row::new(S::GONE, "GATEWAY_API_VERSION_GONE"),
            Self::MethodNotAllowed { path, allow } => {
                let row = Row::new(S::METHOD_NOT_ALLOWED, "GATEWAY_METHOD_NOT_ALLOWED");
                if path.is_empty() { row } else { row.detail(Detail::Methods { path, allow }) }
            }
            Self::RateLimited { retry_after } => {
                Row::new(S::TOO_MANY_REQUESTS, "GATEWAY_RATE_LIMITED").retry(*retry_after)
            }
            Self::UpstreamBudget(held) => {
                Row::new(S::TOO_MANY_REQUESTS, "GATEWAY_UPSTREAM_BUDGET").retry(held.wait).detail(Detail::Held(held.by))
            }
            Self::LimitStoreUnavailable => Row::new(S::SERVICE_UNAVAILABLE, "GATEWAY_STORE_LOST").retry(DEFAULT_RETRY),
            Self::Overloaded => Row::new(S::SERVICE_UNAVAILABLE, "GATEWAY_OVERLOADED").retry(DEFAULT_RETRY),
            Self::TargetTooLong { limit } => {
                Row::new(S::URI_TOO_LONG, "GATEWAY_TARGET_TOO_LONG").limit("limits.target_bytes", *limit)
            }
            Self::HeadTooLarge { limit } => Row::new(S::REQUEST_HEADER_FIELDS_TOO_LARGE, "GATEWAY_HEAD_TOO_LARGE")
                .limit("limits.head_bytes", *limit),
            Self::TooManyFields { limit } => Row::new(S::REQUEST_HEADER_FIELDS_TOO_LARGE, "GATEWAY_HEAD_TOO_LARGE")
                .detail(Detail::FieldCount(*limit)),
            Self::BodyTooLarge { limit, key } => {
                Row::new(S::PAYLOAD_TOO_LARGE, "GATEWAY_BODY_TOO_LARGE").detail(Detail::Limit { key, value: *limit })
            }
            Self::RequestTimeout { part, limit, key } => Row::new(S::REQUEST_TIMEOUT, "GATEWAY_REQUEST_TIMEOUT")
                .detail(Detail::Late { part, key, limit: *limit }),
            Self::UpstreamUnreachable { reason, .. } => {
                Row::new(S::BAD_GATEWAY, "GATEWAY_UPSTREAM_UNREACHABLE").text(reason)
            }
            Self::UpstreamInvalid => Row::new(S::BAD_GATEWAY, "GATEWAY_UPSTREAM_INVALID"),
            Self::UpstreamBroken { status, reason } => {
                Row::new(S::BAD_GATEWAY, "GATEWAY_UPSTREAM_BROKEN").detail(Detail::Broken { status: *status, reason })
            }
            Self::UpstreamTimeout => Row::new(S::GATEWAY_TIMEOUT, "GATEWAY_UPSTREAM_TIMEOUT"),
            Self::Stopping { sent } => {
                let row = Row::new(S::SERVICE_UNAVAILABLE, "GATEWAY_STOPPING");
                if *sent {
                    return row.text("given up after it was sent: calgate ended first");
                }
                row.retry(DEFAULT_RETRY).text("given up, and not carried out: calgate ended first")
            }
            Self::Loop => Row::new(S::LOOP_DETECTED, "GATEWAY_LOOP"),
            Self::Internal => Row::new(S::INTERNAL_SERVER_ERROR, "GATEWAY_INTERNAL"),
        }
    }
}
