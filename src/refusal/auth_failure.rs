//! Reasons of a 401: the full text for the access log, and one text for every client.

use std::fmt;
use std::sync::Arc;

use crate::secret::KeyHash;

/// What a request carries in place of a gateway key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoKey {
    /// None of the headers that carry credentials.
    Missing,
    /// A credential that is not a gateway key, while `[passthrough]` is off.
    Foreign,
    /// A credential in no form that Cal.com issues, while `[passthrough]` is on.
    NotACredential,
    /// A credential of the client's own in `X-Api-Key`, which Cal.com does not read.
    Unread,
    /// A test-mode API key, while `passthrough.test_keys` is false.
    TestKeysOff,
    /// A live-mode API key, while `passthrough.live_keys` is false.
    LiveKeysOff,
}

impl NoKey {
    /// Returns whether the `[anonymous]` consumer stands for such a caller. A credential of a kind that the operator
    /// turned off is somebody's own: it never becomes another identity.
    pub(crate) fn may_be_anonymous(self) -> bool {
        match self {
            Self::Missing | Self::Foreign | Self::NotACredential => true,
            Self::Unread | Self::TestKeysOff | Self::LiveKeysOff => false,
        }
    }
}

/// Why a request is answered 401. `Display` is the text for the access log, and never holds a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthFailure {
    /// There is no gateway key.
    NoKey(NoKey),
    /// A gateway key stands in a header, or after a scheme, where calgate does not look for it.
    Misplaced,
    /// The text after `calgate_` does not have the length or the characters of a key.
    Malformed,
    /// The checksum at the end of the key does not match.
    Checksum,
    /// No consumer lists the hash of the key.
    Unknown(KeyHash),
    /// The key's `expires` is in the past.
    Expired {
        /// The hash of the key.
        hash: KeyHash,
        /// The consumer that lists it.
        consumer: Arc<str>,
    },
    /// A reload removed the key from a consumer's `keys`.
    Revoked {
        /// The hash of the key.
        hash: KeyHash,
        /// The consumer that listed it.
        consumer: Arc<str>,
    },
    /// A platform client's secret came without `x-cal-client-id`, for an operation without `{clientId}` in its path.
    SecretWithoutId,
}

impl AuthFailure {
    /// The text for the client, the same for every failure: a prober learns nothing from it.
    pub(crate) const MESSAGE: &str = "No valid gateway key. Send one that begins with calgate_ as Authorization: Bearer or \
         X-Api-Key. An operator makes keys with `calgate key new`, and finds the reason for this answer in the access log.";
}

impl From<NoKey> for AuthFailure {
    fn from(no_key: NoKey) -> Self {
        Self::NoKey(no_key)
    }
}

impl fmt::Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "no gateway key in Authorization, X-Api-Key or x-cal-secret-key",
            Self::Foreign => "a credential that is not a gateway key, and passthrough.enabled is false",
            Self::NotACredential => "neither a gateway key nor a credential in a form that Cal.com issues",
            Self::Unread => {
                "a Cal.com credential in X-Api-Key, where Cal.com reads none: send it as Authorization: Bearer"
            }
            Self::TestKeysOff => "a test-mode API key, and passthrough.test_keys is false",
            Self::LiveKeysOff => "a live-mode API key, and passthrough.live_keys is false",
        })
    }
}

impl fmt::Display for AuthFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey(no_key) => no_key.fmt(f),
            Self::Misplaced => f.write_str("a gateway key in a place where it is not read"),
            Self::Malformed => f.write_str("mistyped gateway key: wrong length or characters"),
            Self::Checksum => f.write_str("mistyped gateway key: its checksum does not match"),
            Self::Unknown(hash) => write!(f, "unknown gateway key {}: no consumer lists it", hash.start()),
            Self::Expired { hash, consumer } => {
                write!(f, "expired gateway key {} of the consumer \"{consumer}\"", hash.start())
            }
            Self::Revoked { hash, consumer } => {
                write!(f, "revoked gateway key {}: a reload removed it from the consumer \"{consumer}\"", hash.start())
            }
            Self::SecretWithoutId => {
                f.write_str("x-cal-secret-key without x-cal-client-id, and no {clientId} in the path")
            }
        }
    }
}
