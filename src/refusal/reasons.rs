//! Reasons in refusals: the fault of a path, the rule that denies an operation, the place of a leaked secret.

use std::fmt;
use std::sync::Arc;

/// Reason why a path has no canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// The target does not have origin-form (RFC 9112 §3.2.1).
    NotOriginForm,
    /// The path has two slashes in a row.
    EmptySegment,
    /// The path has a segment `.` or `..`, plain or escaped.
    DotSegment,
    /// The path has a raw `;` or a byte that RFC 3986 §3.3 does not allow.
    InvalidByte,
    /// The path has a `%` without two hexadecimal digits.
    BrokenEscape,
    /// The path has an escaped `/ \ % ? # ;` or control character.
    AmbiguousEscape,
    /// The path has escapes that are not UTF-8.
    NotUtf8,
    /// The path has a word that Cal.com rewrites before it routes.
    Rewritten,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOriginForm => "the request target must be a path that begins with /",
            Self::EmptySegment => "the path has an empty segment (//)",
            Self::DotSegment => "the path has a segment that is `.` or `..`",
            Self::InvalidByte => "the path has a character that has to be percent-encoded",
            Self::BrokenEscape => "the path has a % that is not followed by two hexadecimal digits",
            Self::AmbiguousEscape => "the path has an encoded / \\ % ? # ; or control character",
            Self::NotUtf8 => "the path has escapes that are not UTF-8",
            Self::Rewritten => "the path has a word that Cal.com rewrites (reccuring)",
        })
    }
}

/// Rule that denies an operation, with the list that contains it: `plan "teams" denies "Orgs"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule(Arc<str>);

impl Rule {
    pub(crate) fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Secret in a wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leak {
    /// A gateway key in the request target.
    KeyInTarget,
    /// A secret of the configuration in the request target.
    SecretInTarget,
    /// A gateway key in a header that is forwarded.
    KeyInHeader,
}

impl Leak {
    /// Returns the message for the client.
    pub(crate) fn message(self) -> String {
        match self {
            Self::KeyInTarget | Self::KeyInHeader => format!(
                "The request has {self}, which would reach Cal.com; it was not sent. Send the key as Authorization: Bearer \
                 or X-Api-Key only, and have it replaced: it may be in logs."
            ),
            Self::SecretInTarget => {
                format!("The request has {self}; it was not sent. Leave the credential out: calgate adds it.")
            }
        }
    }
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeyInTarget => "a gateway key in its path or query",
            Self::SecretInTarget => "a configured Cal.com secret in its path or query",
            Self::KeyInHeader => "a gateway key in a header that is forwarded",
        })
    }
}
