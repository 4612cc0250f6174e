//! The table of refusals: status, code, `Retry-After` and the detail for the log, one row for each.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

use super::Refusal;
use crate::ratelimit::Hold;

/// One second: what a client waits if nothing tells when the next try succeeds.
const SHORTLY: Duration = Duration::from_secs(1);

/// How a refusal is answered and logged.
pub(super) struct Row<'a> {
    pub(super) status: StatusCode,
    /// The stable code.
    pub(super) code: &'static str,
    /// Until the next try may succeed.
    pub(super) retry_after: Option<Duration>,
    /// The rule or the fault, for the log only. Of what a client sends, it holds a cleaned path or host at most.
    pub(super) detail: Option<Cow<'a, str>>,
}

impl<'a> Row<'a> {
    fn new(status: StatusCode, code: &'static str) -> Self {
        Self { status, code, retry_after: None, detail: None }
    }

    fn after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    fn because(self, detail: impl Into<Cow<'a, str>>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }
}

impl Refusal {
    /// The row of this refusal. A new variant does not compile without one.
    pub(super) fn row(&self) -> Row<'_> {
        use StatusCode as S;
        match self {
            Self::InvalidPath(fault) => Row::new(S::BAD_REQUEST, "GATEWAY_BAD_REQUEST").because(fault.to_string()),
            Self::InvalidHeader(fault) => Row::new(S::BAD_REQUEST, "GATEWAY_BAD_REQUEST").because(*fault),
            Self::Leak(leak) => Row::new(S::BAD_REQUEST, "GATEWAY_BAD_REQUEST").because(leak.to_string()),
            Self::InvalidVersion | Self::BodyBroken => Row::new(S::BAD_REQUEST, "GATEWAY_BAD_REQUEST"),
            Self::HostNotAllowed { host } => {
                let row = Row::new(S::MISDIRECTED_REQUEST, "GATEWAY_HOST_NOT_ALLOWED");
                if host.is_empty() {
                    return row.because("Host cannot be read");
                }
                row.because(format!("\"{host}\" is not in listen.hosts"))
            }
            Self::OriginNotAllowed => Row::new(S::FORBIDDEN, "GATEWAY_ORIGIN_NOT_ALLOWED")
                .because("Origin or Sec-Fetch-Site is foreign and not in listen.cors_origins"),
            Self::Unauthenticated(failure) => {
                Row::new(S::UNAUTHORIZED, "GATEWAY_UNAUTHENTICATED").because(failure.to_string())
            }
            Self::TooManyFailures { failure, retry_after } => {
                let row = Row::new(S::TOO_MANY_REQUESTS, "GATEWAY_TOO_MANY_FAILURES").after(*retry_after);
                Row { detail: failure.as_ref().map(|failure| failure.to_string().into()), ..row }
            }
            Self::NotEntitled(rule) => Row::new(S::FORBIDDEN, "GATEWAY_NOT_ENTITLED").because(rule.to_string()),
            Self::CredentialOperation => Row::new(S::FORBIDDEN, "GATEWAY_CREDENTIAL_OPERATION"),
            Self::CredentialUnsuitable { .. } => Row::new(S::FORBIDDEN, "GATEWAY_CREDENTIAL_UNSUITABLE"),
            Self::CredentialNeedsLogin { .. } => Row::new(S::SERVICE_UNAVAILABLE, "GATEWAY_CREDENTIAL_NEEDS_LOGIN"),
            Self::CredentialUnavailable { why, retry_after, .. } => {
                let row = Row::new(S::SERVICE_UNAVAILABLE, "GATEWAY_CREDENTIAL_UNAVAILABLE");
                row.after(*retry_after).because(&**why)
            }
            Self::CredentialRefused { renewed } => {
                let row = Row::new(S::SERVICE_UNAVAILABLE, "GATEWAY_CREDENTIAL_REFUSED");
                if *renewed { row.after(SHORTLY) } else { row }
            }
            Self::UnknownManagedUser => Row::new(S::NOT_FOUND, "GATEWAY_UNKNOWN_MANAGED_USER"),
            Self::ManagedUserNotAllowed => Row::new(S::FORBIDDEN, "GATEWAY_MANAGED_USER_NOT_ALLOWED"),
            Self::TokensUnkept => Row::new(S::FORBIDDEN, "GATEWAY_TOKENS_UNKEPT"),
            Self::UnknownEndpoint { path, .. } => {
                Row::new(S::NOT_FOUND, "GATEWAY_UNKNOWN_ENDPOINT").because(format!("no path {path} in the catalog"))
            }
            Self::ApiV1Gone => Row::new(S::GONE, "GATEWAY_API_VERSION_GONE"),
            Self::MethodNotAllowed { path, allow } => {
                let row = Row::new(S::METHOD_NOT_ALLOWED, "GATEWAY_METHOD_NOT_ALLOWED");
                if path.is_empty() { row } else { row.because(format!("{path} takes {allow}")) }
            }
            Self::RateLimited { retry_after } => {
                Row::new(S::TOO_MANY_REQUESTS, "GATEWAY_RATE_LIMITED").after(*retry_after)
            }
            Self::UpstreamBudget(held) => {
                Row::new(S::TOO_MANY_REQUESTS, "GATEWAY_UPSTREAM_BUDGET").after(held.wait).because(held_by(held.by))
            }
            Self::LimitStoreUnavailable => Row::new(S::SERVICE_UNAVAILABLE, "GATEWAY_STORE_LOST").after(SHORTLY),
            Self::Overloaded => Row::new(S::SERVICE_UNAVAILABLE, "GATEWAY_OVERLOADED").after(SHORTLY),
            Self::TargetTooLong { limit } => {
                Row::new(S::URI_TOO_LONG, "GATEWAY_TARGET_TOO_LONG").because(format!("limits.target_bytes = {limit}"))
            }
            Self::HeadTooLarge { limit } => Row::new(S::REQUEST_HEADER_FIELDS_TOO_LARGE, "GATEWAY_HEAD_TOO_LARGE")
                .because(format!("limits.head_bytes = {limit}")),
            Self::TooManyFields { limit } => Row::new(S::REQUEST_HEADER_FIELDS_TOO_LARGE, "GATEWAY_HEAD_TOO_LARGE")
                .because(format!("more than {limit} header fields")),
            Self::BodyTooLarge { limit, key } => {
                Row::new(S::PAYLOAD_TOO_LARGE, "GATEWAY_BODY_TOO_LARGE").because(format!("{key} = {limit}"))
            }
            Self::RequestTimeout { part, limit, key } => Row::new(S::REQUEST_TIMEOUT, "GATEWAY_REQUEST_TIMEOUT")
                .because(format!("{part} is late: {key} = {limit:?}")),
            Self::UpstreamUnreachable { reason, .. } => {
                Row::new(S::BAD_GATEWAY, "GATEWAY_UPSTREAM_UNREACHABLE").because(&**reason)
            }
            Self::UpstreamInvalid => Row::new(S::BAD_GATEWAY, "GATEWAY_UPSTREAM_INVALID"),
            Self::UpstreamBroken { status, reason } => Row::new(S::BAD_GATEWAY, "GATEWAY_UPSTREAM_BROKEN")
                .because(format!("status {}: {reason}", status.as_u16())),
            Self::UpstreamTimeout => Row::new(S::GATEWAY_TIMEOUT, "GATEWAY_UPSTREAM_TIMEOUT"),
            Self::Stopping { sent } => {
                let row = Row::new(S::SERVICE_UNAVAILABLE, "GATEWAY_STOPPING");
                if *sent {
                    return row.because("given up after it was sent: calgate ended first");
                }
                row.after(SHORTLY).because("given up before it was sent: calgate ended first")
            }
            Self::Loop => Row::new(S::LOOP_DETECTED, "GATEWAY_LOOP"),
            Self::Internal => Row::new(S::INTERNAL_SERVER_ERROR, "GATEWAY_INTERNAL"),
        }
    }
}

/// Returns why a request is held, for the log. Under overload this is the most frequent refusal: the text is static.
fn held_by(hold: Hold) -> &'static str {
    match hold {
        Hold::Requests => "held by requests",
        Hold::Remaining => "held by remaining",
        Hold::Pace => "held by pace",
        Hold::Refused => "held by refused",
        Hold::Edge => "held by edge",
        Hold::Queue => "held by queue",
    }
}
