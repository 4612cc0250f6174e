//! Reasons of a 401: the full text for the access log, and one text for every client.

use std::fmt;
use std::sync::Arc;

use crate::secret::KeyHash;

/// Reason why a request has no gateway key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoKey {
    /// No header carries a credential.
    Missing,
    /// There is another credential, and `[passthrough]` is off.
    Foreign,
    /// There is a credential in a form that Cal.com does not issue, and `[passthrough]` is on.
    NotACredential,
    /// A Cal.com credential is in `X-Api-Key`, which Cal.com does not read.
    Unread,
    /// There is a test-mode API key, and `passthrough.test_keys` is false.
    TestKeysOff,
    /// There is a live-mode API key, and `passthrough.live_keys` is false.
    LiveKeysOff,
}

impl NoKey {
    /// Returns whether the `[anonymous]` consumer may serve such a caller. A credential of a kind that the operator turned
    /// off belongs to someone: its owner never gets another identity.
    pub(crate) fn may_be_anonymous(self) -> bool {
        match self {
            Self::Missing | Self::Foreign | Self::NotACredential => true,
            Self::Unread | Self::TestKeysOff | Self::LiveKeysOff => false,
        }
    }
}

/// Reason of a 401. `Display` formats the text for the access log, which never contains a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthFailure {
    /// There is no gateway key.
    NoKey(NoKey),
    /// A gateway key is in a header or after a scheme where calgate does not read one.
    Misplaced,
    /// The text after `calgate_` does not have the length or the characters of a key.
    Malformed,
    /// The checksum at the end of the key does not match.
    Checksum,
    /// No consumer lists the hash of the key.
    Unknown(KeyHash),
    /// The key's `expires` is in the past.
    Expired {
        /// Hash of the key.
        hash: KeyHash,
        /// Consumer that lists it.
        consumer: Arc<str>,
    },
    /// A reload removed the key from a consumer's `keys`.
    Revoked {
        /// Hash of the key.
        hash: KeyHash,
        /// Consumer that listed it.
        consumer: Arc<str>,
    },
    /// The secret of a platform client came without `x-cal-client-id`, and the path has no `{clientId}`.
    SecretWithoutId,
}

impl AuthFailure {
    /// Message for the client. It is the same for every failure, so that a prober learns nothing from it.
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
