//! What the access log says of a refusal beside its code.

use super::Refusal;

impl Refusal {
    /// The rule or the fault for the log. Of what a client sends, it holds a cleaned path or host at most.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::BadTarget(fault) => Some(fault.to_string()),
            Self::BadHeader(fault) => Some((*fault).to_owned()),
            Self::Leak(leak) => Some(leak.to_string()),
            Self::HostNotAllowed { host } if host.is_empty() => Some("Host cannot be read".to_owned()),
            Self::HostNotAllowed { host } => Some(format!("\"{host}\" is not in listen.hosts")),
            Self::OriginNotAllowed => {
                Some("Origin or Sec-Fetch-Site is foreign and not in listen.cors_origins".to_owned())
            }
            Self::Unauthenticated(failure) => Some(failure.to_string()),
            Self::TooManyFailures { failure, .. } => failure.as_ref().map(ToString::to_string),
            Self::NotEntitled(rule) => Some(rule.to_string()),
            Self::UnknownEndpoint { path, .. } => Some(format!("no path {path} in the catalog")),
            Self::MethodNotAllowed { path, allow } if !path.is_empty() => Some(format!("{path} takes {allow}")),
            Self::TargetTooLong { limit } => Some(format!("limits.target_bytes = {limit}")),
            Self::HeadTooLarge { limit } => Some(format!("limits.head_bytes = {limit}")),
            Self::TooManyFields { limit } => Some(format!("more than {limit} header fields")),
            Self::BodyTooLarge { limit, key } => Some(format!("{key} = {limit}")),
            Self::RequestTimeout { part, limit, key } => Some(format!("{part} is late: {key} = {limit:?}")),
            Self::UpstreamUnreachable { reason, .. } => Some(reason.to_string()),
            Self::UpstreamBroken { status, reason } => Some(format!("status {}: {reason}", status.as_u16())),
            Self::Stopping { sent: true } => Some("given up after it was sent: calgate ended first".to_owned()),
            Self::Stopping { sent: false } => Some("given up before it was sent: calgate ended first".to_owned()),
            Self::UpstreamBudget(held) => Some(format!("held by {}", held.by.name())),
            Self::CredentialUnavailable { why, .. } => Some(why.to_string()),
            _ => None,
        }
    }
}
