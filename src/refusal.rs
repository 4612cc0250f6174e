//! Refusals of the gateway: every reason for an error of its own, with the message.
//!
//! A refusal has the format of Cal.com's errors (FACTS §6), so that a Cal.com client shows its message. Its field
//! `x-calgate-code` distinguishes it from every response of Cal.com. Of the request, it repeats only a shortened path
//! without anything that may be a secret.

mod auth_failure;
mod delivery;
mod detail;
mod paths;
mod reasons;
mod row;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::ratelimit::Throttled;
pub use auth_failure::{AuthFailure, NoKey};
pub use reasons::{Leak, PathError, Rule};

/// Message for a client whose `Host` is foreign.
const HOST_MESSAGE: &str = "A request without a gateway key has to name this gateway in Host: a loopback name, the \
     address it listens on, or one of listen.hosts. Send a gateway key, or have an operator list the host.";

/// Message for a web page of a foreign origin.
const ORIGIN_MESSAGE: &str = "A web page of another origin sends this request without a gateway key. An operator \
     can list the page's origin in listen.cors_origins.";

/// Reason why the gateway answers a request instead of Cal.com.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// The target has no canonical form.
    InvalidPath(PathError),
    /// A header breaks a rule. The text names the rule, and never quotes a value.
    InvalidHeader(&'static str),
    /// `cal-api-version` is not a date. Cal.com would silently use its oldest version.
    InvalidVersion,
    /// A gateway key or another secret is in a place that would be forwarded.
    Leak(Leak),
    /// A keyless request names a foreign host.
    HostNotAllowed {
        /// The host, if it can be read.
        host: Box<str>,
    },
    /// A keyless request comes from a web page of another origin.
    OriginNotAllowed,
    /// The key is missing, mistyped, unknown, expired or revoked. The client does not learn which.
    Unauthenticated(AuthFailure),
    /// Too many bad keys from one address.
    TooManyFailures {
        /// The fault of this request, if the gateway checked it.
        failure: Option<AuthFailure>,
        /// Time until the gateway checks the next request of this address.
        retry_after: Duration,
    },
    /// The plan or the restriction of the consumer excludes the operation.
    NotEntitled(Rule),
    /// The operation shows or changes credentials, and the consumer may not use it by name.
    CredentialOperation,
    /// The catalog lists other kinds of credentials for the operation.
    CredentialUnsuitable {
        /// Name of the credential in the configuration.
        credential: Arc<str>,
        /// Kinds of credentials that the catalog lists.
        wanted: &'static str,
        /// A sentence about the remedy.
        remedy: &'static str,
    },
    /// The token of the credential has expired, and only a login renews it.
    CredentialNeedsLogin {
        /// Name of the credential in the configuration, with the managed user's id if it is one's.
        credential: Arc<str>,
    },
    /// The credential has no valid token now. The gateway tries to renew it.
    CredentialUnavailable {
        /// Name of the credential.
        credential: Arc<str>,
        /// Cause, for the log.
        why: Arc<str>,
        /// Time until the next renewal.
        retry_after: Duration,
    },
    /// Cal.com rejected the token, and the body was too large for a second attempt. Nothing was carried out.
    CredentialRefused {
        /// Whether a newer token exists, so that sending the request again helps.
        renewed: bool,
    },
    /// The token store has no tokens of the managed user.
    UnknownManagedUser,
    /// The consumer may not act for the managed user.
    ManagedUserNotAllowed,
    /// The response would contain new tokens that the gateway may neither store nor show.
    TokensUnkept,
    /// The catalog does not contain the path.
    UnknownEndpoint {
        /// Canonical path, shortened and without anything that may be a secret.
        path: Box<str>,
        /// Likely fault of the path.
        advice: Option<Box<str>>,
    },
    /// The path belongs to API v1.
    ApiV1Gone,
    /// The catalog contains the path with other methods only.
    MethodNotAllowed {
        /// Canonical path, as in [`Self::UnknownEndpoint`]. It is empty for a method that no path supports.
        path: Box<str>,
        /// Value of `Allow`.
        allow: String,
    },
    /// The consumer's bucket is empty.
    RateLimited {
        /// Time until the bucket has a token.
        retry_after: Duration,
    },
    /// The credential's budget cannot admit the request within the time that it may wait.
    UpstreamBudget(Throttled),
    /// The limit store does not answer, and `limit_store.on_loss` is "closed".
    LimitStoreUnavailable,
    /// The gateway has reached `limits.in_flight` or `limits.connections`.
    Overloaded,
    /// The request target is longer than `limits.target_bytes`.
    TargetTooLong {
        /// Limit in bytes.
        limit: usize,
    },
    /// The header fields are larger than `limits.head_bytes`.
    HeadTooLarge {
        /// Limit in bytes.
        limit: usize,
    },
    /// The request has too many header fields.
    TooManyFields {
        /// Maximum number of fields.
        limit: usize,
    },
    /// The body is larger than a limit.
    BodyTooLarge {
        /// Limit in bytes.
        limit: u64,
        /// Configuration key of the limit.
        key: &'static str,
    },
    /// The client was too slow to send a part of its request.
    RequestTimeout {
        /// Part of the request: the head or the body.
        part: &'static str,
        /// Time limit of the part.
        limit: Duration,
        /// Configuration key of the limit.
        key: &'static str,
    },
    /// The request body ended early, or its framing is broken.
    BodyBroken,
    /// Cal.com could not be reached, or the connection broke before a response.
    UpstreamUnreachable {
        /// Cause, for the log.
        reason: Arc<str>,
        /// Whether Cal.com may have received any of the request.
        sent: bool,
    },
    /// The response of Cal.com cannot be passed on safely.
    UpstreamInvalid,
    /// The response of Cal.com broke off or stalled before any of it reached the client.
    UpstreamBroken {
        /// Status of the response.
        status: StatusCode,
        /// Cause, for the log.
        reason: &'static str,
    },
    /// Cal.com did not answer within `limits.upstream_headers`.
    UpstreamTimeout,
    /// The process stops before the request has a response.
    Stopping {
        /// Whether Cal.com may have carried out the request.
        sent: bool,
    },
    /// The request passed this process before, because its upstream leads back to it.
    Loop,
    /// The gateway itself failed.
    Internal,
}

/// Public part of a refusal.
#[derive(Debug)]
pub struct PublicError {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable code: `error.code` and `x-calgate-code`.
    pub code: &'static str,
    /// What happened, and what to do.
    pub message: String,
    /// Value of `Retry-After` in seconds.
    pub retry_after: Option<u64>,
}

/// Returns how an operator restores a credential that cannot be renewed. The name is that of the token store.
pub fn recovery_hint(credential: &str) -> String {
    match credential.split_once('/') {
        Some((name, user)) => {
            format!("import new tokens with `calgate credentials import {name} --managed-user {user}`")
        }
        None => format!(
            "log in with `calgate login {credential}`, or import tokens with `calgate credentials import {credential}`"
        ),
    }
}

impl Refusal {
    /// Rejects a method that no path supports. `allow` lists the methods of the API.
    pub fn unsupported_method(allow: &str) -> Self {
        Self::MethodNotAllowed { path: "".into(), allow: allow.to_owned() }
    }

    /// Rejects a head that did not arrive within `limits.head`.
    pub fn late_head(limit: Duration) -> Self {
        Self::RequestTimeout { part: "head", limit, key: "limits.head" }
    }

    /// Rejects a body that did not arrive within `limits.body`.
    pub fn late_body(limit: Duration) -> Self {
        Self::RequestTimeout { part: "body", limit, key: "limits.body" }
    }

    /// Returns the stable code.
    pub fn code(&self) -> &'static str {
        self.row().code
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        self.row().status
    }

    /// Returns the rule or the fault, for the log. Of the request, it contains at most a cleaned path or host.
    pub fn detail(&self) -> Option<String> {
        self.row().detail.map(|detail| detail.to_string())
    }

    fn message(&self) -> String {
        match self {
            Self::InvalidPath(fault) => format!("Invalid path: {fault}. Send the path in canonical form."),
            Self::InvalidHeader(fault) => format!("Invalid request: {fault}."),
            Self::InvalidVersion => "The header cal-api-version is not a date of the form YYYY-MM-DD. Cal.com would \
                                     silently read it as 2024-04-15. Send a version such as 2024-08-13, or leave the \
                                     header out."
                .to_owned(),
            Self::Leak(leak) => leak.message(),
            Self::HostNotAllowed { .. } => HOST_MESSAGE.to_owned(),
            Self::OriginNotAllowed => ORIGIN_MESSAGE.to_owned(),
            Self::Unauthenticated(_) => AuthFailure::MESSAGE.to_owned(),
            Self::TooManyFailures { .. } => {
                "Too many requests without a valid gateway key or credential from this address. Correct it, then wait as \
                 Retry-After says."
                    .to_owned()
            }
            Self::NotEntitled(rule) => {
                format!("This operation is not included: {rule}. Ask the gateway's operator if it should be.")
            }
            Self::CredentialOperation => "This operation shows or changes credentials that others share. An operator can \
                                          allow it by name with allow_credential_operations."
                .to_owned(),
            Self::CredentialUnsuitable { credential, wanted, remedy } => format!(
                "The credential \"{credential}\" does not have {wanted}, which the gateway's catalog lists for this \
                 operation. {remedy}"
            ),
            Self::CredentialNeedsLogin { credential } => format!(
                "The token of the credential \"{credential}\" has expired and cannot be renewed. An operator has to {}.",
                recovery_hint(credential)
            ),
            Self::CredentialUnavailable { credential, .. } => format!(
                "The credential \"{credential}\" has no valid token, and could not be renewed yet. The request was not sent. Wait as \
                 Retry-After says."
            ),
            Self::CredentialRefused { renewed: true } => {
                "Cal.com refused the access token, which has been renewed meanwhile. The request was not carried out. Send \
                 it again."
                    .to_owned()
            }
            Self::CredentialRefused { renewed: false } => {
                "Cal.com refused the access token, and there is no newer one. The request was not carried out.".to_owned()
            }
            Self::UnknownManagedUser => "The gateway has no tokens of this managed user. Create the user through the \
                                         gateway, or have an operator import its tokens with `calgate credentials import`."
                .to_owned(),
            Self::ManagedUserNotAllowed => "This consumer may not act for this managed user. An operator can allow it with \
                                            managed_users."
                .to_owned(),
            Self::TokensUnkept => "The response to this operation contains new tokens, and the gateway is configured neither to \
                                   store them nor to show them. They would be lost. An operator can add a [token_store] (and \
                                   managed_users), or reveal_tokens."
                .to_owned(),
            Self::UnknownEndpoint { path, advice } => paths::unknown_endpoint(path, advice.as_deref()),
            Self::ApiV1Gone => "Cal.com ended API v1 in April 2026, and answers 410. Use API v2, whose paths \
                                begin with /v2."
                .to_owned(),
            Self::MethodNotAllowed { path, allow } => paths::method_not_allowed(path, allow),
            Self::RateLimited { .. } => {
                "This consumer has used all requests of its rate limit. Wait as Retry-After says.".to_owned()
            }
            Self::UpstreamBudget(_) => "Cal.com's limit for the credential behind this request is used up for now, and the \
                                       wait for it is longer than the request may wait. Wait as Retry-After says."
                .to_owned(),
            Self::LimitStoreUnavailable => "Rate limits are temporarily unavailable. Send the request again after the time in Retry-After.".to_owned(),
            Self::Overloaded => "The gateway is at its limit of connections or of requests in flight. Send the request again after the time in Retry-After.".to_owned(),
            Self::TargetTooLong { limit } => format!(
                "The request target is longer than {limit} bytes. Shorten the query, or ask the gateway's operator to raise \
                 limits.target_bytes."
            ),
            Self::HeadTooLarge { limit } => format!(
                "The request's header fields are larger than {limit} bytes in total. Send fewer or shorter fields, or ask the \
                 gateway's operator to raise limits.head_bytes."
            ),
            Self::TooManyFields { limit } => {
                format!("The request has more than {limit} header fields. Send fewer fields.")
            }
            Self::BodyTooLarge { limit, key } => format!(
                "The request's body is larger than {limit} bytes. Send a smaller body, or ask the gateway's operator to raise \
                 {key}."
            ),
            Self::RequestTimeout { part, limit, key } => {
                format!("The request's {part} did not arrive within {limit:?} ({key}). Send the request again.")
            }
            Self::BodyBroken => "The request's body broke off before its end.".to_owned(),
            Self::UpstreamUnreachable { sent, .. } => delivery::unreachable(*sent),
            Self::UpstreamInvalid => "Cal.com's response is invalid, and was not passed on. The request was sent, and may \
                                      have been carried out."
                .to_owned(),
            Self::UpstreamBroken { status, .. } => delivery::broken(*status),
            Self::Stopping { sent } => delivery::stopping(*sent),
            Self::UpstreamTimeout => "Cal.com did not answer in time. Whether the request was carried out is unknown \
                                      unless it was a GET."
                .to_owned(),
            Self::Loop => "This request has already passed this gateway: its upstream leads back to it. An operator has to \
                           correct base_url in [upstream]."
                .to_owned(),
            Self::Internal => "The gateway failed on this request. Its log has the request's id.".to_owned(),
        }
    }

    /// Returns the public part.
    pub fn public_error(&self) -> PublicError {
        let row = self.row();
        let retry_after = row.retry_after.map(retry_after_secs);
        PublicError { status: row.status, code: row.code, message: self.message(), retry_after }
    }
}

/// Returns the value of `Retry-After`: rounded up, and at least 1, so that no client returns early.
pub fn retry_after_secs(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}
