//! Every refusal of the gateway, with its message.
//!
//! Used by every stage. The answer has the shape of Cal.com's own errors (FACTS §6), so that a Cal.com client shows the
//! message, and carries `x-calgate-code`, which no answer from Cal.com ever does. Of what the client sent, it repeats only a path, cut
//! short and without anything that may be a secret.

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

/// The text for a client whose `Host` is foreign.
const HOST_MESSAGE: &str = "A request without a gateway key has to name this gateway in Host: a loopback name, the \
     address it listens on, or one of listen.hosts. Send a gateway key, or have an operator list the host.";

/// The text for a web page whose origin is foreign.
const ORIGIN_MESSAGE: &str = "A web page of another origin sends this request without a gateway key. An operator \
     can list the page's origin in listen.cors_origins.";

/// Why a request is not forwarded, or why no answer could be had for it.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// The target has no canonical form.
    InvalidPath(PathError),
    /// A header rule is broken; the text says which and never quotes a value.
    InvalidHeader(&'static str),
    /// `cal-api-version` is not a date, which Cal.com would silently read as its oldest version.
    InvalidVersion,
    /// A gateway key or another secret stands where it would be forwarded.
    Leak(Leak),
    /// A keyless request names a host that is not this gateway's.
    HostNotAllowed {
        /// The host that it names, if that can be read.
        host: Box<str>,
    },
    /// A keyless request comes from a web page of another origin.
    OriginNotAllowed,
    /// No key, or a key that is mistyped, unknown, expired or revoked. The client is not told which.
    Unauthenticated(AuthFailure),
    /// Too many bad keys from one address.
    TooManyFailures {
        /// What this request is refused for, where that was looked at.
        failure: Option<AuthFailure>,
        /// Until the next try from there is looked at.
        retry_after: Duration,
    },
    /// The plan or the consumer's own narrowing does not include the operation.
    NotEntitled(Rule),
    /// The operation shows or changes credentials and the consumer is not allowed it by name.
    CredentialOperation,
    /// The credential is of no kind that the catalog lists for the operation.
    CredentialUnsuitable {
        /// The credential's name in the config.
        credential: Arc<str>,
        /// What the catalog lists for the operation.
        wanted: &'static str,
        /// What can be done about it: a sentence.
        remedy: &'static str,
    },
    /// The credential's token has run out, and nothing but a login renews it.
    CredentialNeedsLogin {
        /// The credential's name in the config, with the managed user's id if it is one's.
        credential: Arc<str>,
    },
    /// The credential has no good token at the moment; it is tried again by itself.
    CredentialUnavailable {
        /// The credential's name.
        credential: Arc<str>,
        /// What keeps it, for the log.
        why: Arc<str>,
        /// Until it is tried again.
        retry_after: Duration,
    },
    /// Cal.com refused the token; the request was not carried out, and was too large to be kept for another try.
    CredentialRefused {
        /// Whether a newer token is there, so that sending the request again helps.
        renewed: bool,
    },
    /// The store holds no tokens of the managed user.
    UnknownManagedUser,
    /// The consumer may not act for the managed user.
    ManagedUserNotAllowed,
    /// The answer would hold new tokens, which could neither be kept nor shown.
    TokensUnkept,
    /// The catalog does not hold the path.
    UnknownEndpoint {
        /// The canonical path, cut short and without anything that may be a secret.
        path: Box<str>,
        /// What may be wrong with it.
        advice: Option<Box<str>>,
    },
    /// The path is one of API v1.
    ApiV1Gone,
    /// The catalog holds the path with other methods.
    MethodNotAllowed {
        /// The canonical path, as in [`Self::UnknownEndpoint`]; empty for a method that no path takes.
        path: Box<str>,
        /// The value of `Allow`.
        allow: String,
    },
    /// The consumer's bucket is empty.
    RateLimited {
        /// Until it holds a token again.
        retry_after: Duration,
    },
    /// The credential's budget has no place within the time that the request may wait.
    UpstreamBudget(Throttled),
    /// The store of shared limits cannot be asked, and `limit_store.on_loss` is "closed".
    LimitStoreUnavailable,
    /// As many requests are in flight as `[limits] in_flight` allows, or connections open as `[limits] connections` does.
    Overloaded,
    /// The request target is longer than `[limits] target_bytes`.
    TargetTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The header fields are larger than `[limits] head_bytes`.
    HeadTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The request has too many header fields.
    TooManyFields {
        /// The largest number of fields.
        limit: usize,
    },
    /// The body is larger than a limit.
    BodyTooLarge {
        /// The limit in bytes.
        limit: u64,
        /// The configuration key of the limit.
        key: &'static str,
    },
    /// The client took too long to send a part of its request.
    RequestTimeout {
        /// The part that is late: the head or the body.
        part: &'static str,
        /// The time that the part may take.
        limit: Duration,
        /// The configuration key of the limit.
        key: &'static str,
    },
    /// The caller's body ended early or its framing is broken.
    BodyBroken,
    /// No connection to Cal.com, or it broke before an answer came; the log is told why.
    UpstreamUnreachable {
        /// Why.
        reason: Arc<str>,
        /// Whether any of the request may have been sent.
        sent: bool,
    },
    /// What came back is not an answer that may be passed on.
    UpstreamInvalid,
    /// Cal.com's response broke off or stalled before any of it reached the client.
    UpstreamBroken {
        /// The status that Cal.com answered.
        status: StatusCode,
        /// Why, for the log.
        reason: &'static str,
    },
    /// Cal.com did not answer within `[limits] upstream_headers`.
    UpstreamTimeout,
    /// The process ends before the request has a response.
    Stopping {
        /// Whether any of the request may have been sent.
        sent: bool,
    },
    /// The request has passed this process before: its upstream leads back to it.
    Loop,
    /// A fault of the gateway's own.
    Internal,
}

/// A refusal as the caller sees it.
#[derive(Debug)]
pub struct PublicError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The stable code: `error.code` and `x-calgate-code`.
    pub code: &'static str,
    /// What happened and what to do, in words.
    pub message: String,
    /// The value of `Retry-After`, in whole seconds.
    pub retry_after: Option<u64>,
}

/// What an operator does about a credential, named as in the store, that cannot be renewed any more.
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
    /// Refuses a method that no path takes; `allow` lists those that some path takes.
    pub fn unsupported_method(allow: &str) -> Self {
        Self::MethodNotAllowed { path: "".into(), allow: allow.to_owned() }
    }

    /// Refuses a head that did not arrive within `[limits] head`.
    pub fn late_head(limit: Duration) -> Self {
        Self::RequestTimeout { part: "head", limit, key: "limits.head" }
    }

    /// Refuses a body that did not arrive within `[limits] body`.
    pub fn late_body(limit: Duration) -> Self {
        Self::RequestTimeout { part: "body", limit, key: "limits.body" }
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.row().code
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.row().status
    }

    /// The rule or the fault, for the log. Of what a client sends, it holds a cleaned path or host at most.
    pub fn detail(&self) -> Option<String> {
        self.row().detail.map(|detail| detail.to_string())
    }

    fn message(&self) -> String {
        match self {
            Self::InvalidPath(fault) => format!("The request is not taken: {fault}. Send the path in canonical form."),
            Self::InvalidHeader(fault) => format!("The request is not taken: {fault}."),
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
                "The credential \"{credential}\" has run out and cannot be renewed. An operator has to {}.",
                recovery_hint(credential)
            ),
            Self::CredentialUnavailable { credential, .. } => format!(
                "The credential \"{credential}\" has run out and could not be renewed yet; the request was not sent. Wait as \
                 Retry-After says."
            ),
            Self::CredentialRefused { renewed: true } => {
                "Cal.com refused the access token, which has been renewed meanwhile; the request was not carried out. Send \
                 it again."
                    .to_owned()
            }
            Self::CredentialRefused { renewed: false } => {
                "Cal.com refused the access token, and no newer one can be had; the request was not carried out.".to_owned()
            }
            Self::UnknownManagedUser => "The gateway holds no tokens of this managed user. Create the user through the \
                                         gateway, or have an operator import its tokens with `calgate credentials import`."
                .to_owned(),
            Self::ManagedUserNotAllowed => "This consumer may not act for this managed user. An operator can allow it with \
                                            managed_users."
                .to_owned(),
            Self::TokensUnkept => "The answer to this operation holds new tokens, and the gateway is configured neither to \
                                   keep them nor to show them: they would be lost. An operator can add a [token_store] (and \
                                   managed_users), or reveal_tokens."
                .to_owned(),
            Self::UnknownEndpoint { path, advice } => paths::unknown_endpoint(path, advice.as_deref()),
            Self::ApiV1Gone => "Cal.com's API v1 is gone: since April 2026, Cal.com answers it 410. Use API v2, whose paths \
                                begin with /v2."
                .to_owned(),
            Self::MethodNotAllowed { path, allow } => paths::method_not_allowed(path, allow),
            Self::RateLimited { .. } => {
                "This consumer has used up its requests for now. Wait as Retry-After says.".to_owned()
            }
            Self::UpstreamBudget(_) => "Cal.com's limit for the credential behind this request is used up for now, and the \
                                       wait for it is longer than the request may wait. Wait as Retry-After says."
                .to_owned(),
            Self::LimitStoreUnavailable => "The gateway cannot tell whether this consumer has requests left. Try again shortly.".to_owned(),
            Self::Overloaded => "The gateway is at its limit of connections or of requests in flight. Try again shortly.".to_owned(),
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
            Self::UpstreamInvalid => "Cal.com's answer is not one that can be passed on safely. The request was sent, and may \
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

    /// The refusal as the caller sees it.
    pub fn public_error(&self) -> PublicError {
        let row = self.row();
        let retry_after = row.retry_after.map(retry_after_secs);
        PublicError { status: row.status, code: row.code, message: self.message(), retry_after }
    }
}

/// Seconds for `Retry-After`: rounded up, at least 1, so that who waits that long is not early.
pub fn retry_after_secs(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}
