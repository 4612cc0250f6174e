//! Reasons that some refusals carry: what is wrong with a target, which rule refuses, which secret is in the wrong place.

use std::fmt;
use std::sync::Arc;

/// Why a path has no canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// The target is not origin-form (RFC 9112 §3.2.1): absolute, authority or asterisk form.
    NotOriginForm,
    /// Two slashes in a row.
    EmptySegment,
    /// A segment `.` or `..`, also when escaped.
    DotSegment,
    /// A byte that RFC 3986 §3.3 does not allow in a path, or a raw `;`.
    InvalidByte,
    /// `%` without two hexadecimal digits behind it.
    BrokenEscape,
    /// An escaped `/ \ % ? # ;` or control character.
    AmbiguousEscape,
    /// Escapes that do not decode to UTF-8.
    NotUtf8,
    /// A word that Cal.com rewrites before it routes.
    Rewritten,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOriginForm => "the request target has to be a path that begins with /",
            Self::EmptySegment => "the path has an empty segment (//)",
            Self::DotSegment => "the path has a segment . or ..",
            Self::InvalidByte => "the path has a character that has to be percent-encoded",
            Self::BrokenEscape => "the path has a % that is not followed by two hexadecimal digits",
            Self::AmbiguousEscape => "the path has an encoded / \\ % ? # ; or control character",
            Self::NotUtf8 => "the path has escapes that are not UTF-8",
            Self::Rewritten => "the path has a word that Cal.com rewrites (reccuring)",
        })
    }
}

/// What a refusal goes by, in words that name the list it comes from: `plan "teams" denies "Orgs"`.
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

/// What is in the wrong place.
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
    /// The text for the client.
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
