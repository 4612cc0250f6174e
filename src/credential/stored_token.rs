//! Stored form of one renewable credential, before it is sealed.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::zeroize::{Zeroize as _, Zeroizing};
use serde::{Deserialize, Serialize};

use crate::credential::RenewalMethod;
use crate::credential::managed_user::UserId;
use crate::identify::credential_hash;
use crate::secret::Secret;

/// Name of a record in the token store: a credential, and a managed user if the record is about one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordName {
    /// Name of the credential in the configuration.
    pub credential: Arc<str>,
    /// Managed user.
    pub user: Option<UserId>,
}

impl RecordName {
    /// Names the record of a credential itself.
    pub fn of(credential: &str) -> Self {
        Self { credential: credential.into(), user: None }
    }

    /// Names the record of a managed user.
    pub fn of_user(credential: &str, user: UserId) -> Self {
        Self { credential: credential.into(), user: Some(user) }
    }

    /// Parses a stored name. Names of credentials contain no `/`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('/') {
            None => Some(Self::of(text)),
            Some((credential, user)) => Some(Self::of_user(credential, UserId::parse(user)?)),
        }
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.user {
            None => f.write_str(&self.credential),
            Some(user) => write!(f, "{}/{user}", self.credential),
        }
    }
}

/// Access token and refresh token.
#[derive(Debug, Clone)]
pub struct TokenPair {
    /// Access token.
    pub access: Secret,
    /// Refresh token, which is exchanged for the next pair. An API key has none.
    pub refresh: Option<Secret>,
    /// Time of receipt in milliseconds since 1970, by the wall clock of the replica that received it.
    pub received_at: u64,
    /// Lifetime of the access token. `None` means until Cal.com rejects it.
    pub lifetime: Option<Duration>,
}

/// Step of a renewal in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Uses the current refresh token.
    Refresh,
    /// Uses the refresh token of the previous pair, because Cal.com refused the current one, which is not confirmed.
    RefreshPrevious,
    /// Requests a new pair without a refresh token (force-refresh).
    Recover,
}

/// Renewal that started and whose outcome is unknown. If its lock is free, then the process that started it has ended, or
/// never learnt the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Fence of the lock under which it started.
    pub fence: u64,
    /// Current step.
    pub step: Step,
    /// Whether the outcome of an earlier call is unknown, so that the refresh token may already be used up.
    pub in_doubt: bool,
}

/// Record of one renewable credential in the token store.
#[derive(Debug, Clone, Default)]
pub struct StoredCredential {
    /// Number of pairs that this credential has had.
    pub generation: u64,
    /// Pair in use.
    pub current: Option<TokenPair>,
    /// Previous pair, until the current one is confirmed.
    pub previous: Option<TokenPair>,
    /// Renewal whose outcome is unknown.
    pub pending: Option<Pending>,
    /// Reason why this credential needs a login or an import.
    pub needs_login: Option<String>,
    /// Reason why the last renewal failed. The next one may succeed.
    pub fault: Option<String>,
    /// For an API key, fingerprint of the configured key that the stored key replaced. If the configuration has another key,
    /// that key is newer than the stored one.
    pub replaces: Option<String>,
    /// Consecutive renewals that Cal.com refused without naming the refresh token as the reason.
    pub rejections: u32,
}

impl StoredCredential {
    /// Returns the hash of the API key that replaced the configured one, if there is one.
    pub(super) fn replacing_key(&self) -> Option<u128> {
        self.replaces.as_ref()?;
        Some(self.current.as_ref()?.access.expose(|key| credential_hash(&[key])))
    }
}

/// Text of a secret in a record. serde borrows it from the input, which it would not do for an `Option<Cow<str>>`. A copy is
/// wiped when it is dropped.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct WipedStr<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> WipedStr<'a> {
    /// Wraps a text. A copy is wiped when it is dropped.
    pub(super) fn new(text: Cow<'a, str>) -> Self {
        Self(text)
    }

    /// Returns the text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl WipedStr<'_> {
    fn of(secret: &Secret) -> WipedStr<'static> {
        WipedStr(Cow::Owned(secret.expose(str::to_owned)))
    }

    /// Returns whether the text is borrowed, so that there is no copy to wipe.
    pub fn is_borrowed(&self) -> bool {
        matches!(self.0, Cow::Borrowed(_))
    }
}

impl Drop for WipedStr<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(text) = &mut self.0 {
            text.zeroize();
        }
    }
}

/// Serialized form of a pair.
#[derive(Serialize, Deserialize)]
pub struct TokenPairForm<'a> {
    /// Access token.
    #[serde(borrow)]
    pub access: WipedStr<'a>,
    /// Refresh token.
    #[serde(borrow)]
    pub refresh: Option<WipedStr<'a>>,
    received_at_ms: u64,
    lifetime_s: Option<u64>,
}

/// Serialized form of a record. An unknown field is an error: a newer calgate wrote it, and this one would lose it when it
/// writes the record.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordForm<'a> {
    generation: u64,
    /// Pair in use.
    #[serde(borrow)]
    pub current: Option<TokenPairForm<'a>>,
    #[serde(borrow)]
    previous: Option<TokenPairForm<'a>>,
    pending: Option<Pending>,
    needs_login: Option<String>,
    fault: Option<String>,
    replaces: Option<String>,
    /// Written only if it is not zero, so that an older calgate can read all other records.
    #[serde(default, skip_serializing_if = "is_zero")]
    rejections: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl StoredCredential {
    /// Returns whether the record belongs to a credential with this renewal method. A stored key belongs only to the
    /// configured key that it replaced. A grant belongs to no key.
    pub fn is_of(&self, renewal_method: &RenewalMethod) -> bool {
        let configured = match renewal_method {
            RenewalMethod::Key { configured } => Some(configured),
            RenewalMethod::OAuth(_) | RenewalMethod::Managed(_) => None,
        };
        self.replaces.as_ref() == configured
    }

    /// Serializes the record. The result is sealed before it is stored.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Enough capacity for the whole record, because a buffer that grows leaves unwiped copies behind.
        let mut out = Zeroizing::new(Vec::with_capacity(64 * 1024));
        let form = RecordForm {
            generation: self.generation,
            current: self.current.as_ref().map(TokenPairForm::of),
            previous: self.previous.as_ref().map(TokenPairForm::of),
            pending: self.pending,
            needs_login: self.needs_login.clone(),
            fault: self.fault.clone(),
            replaces: self.replaces.clone(),
            rejections: self.rejections,
        };
        // Writing text and numbers into memory cannot fail.
        drop(serde_json::to_writer(&mut *out, &form));
        out
    }

    /// Parses a serialized record. `None` if this version of calgate does not know the form.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let form: RecordForm<'_> = serde_json::from_slice(bytes).ok()?;
        let pair = |form: &Option<TokenPairForm<'_>>| match form {
            None => Some(None),
            Some(form) => form.pair().map(Some),
        };
        Some(Self {
            generation: form.generation,
            current: pair(&form.current)?,
            previous: pair(&form.previous)?,
            pending: form.pending,
            needs_login: form.needs_login,
            fault: form.fault,
            replaces: form.replaces,
            rejections: form.rejections,
        })
    }
}

impl TokenPairForm<'_> {
    fn of(pair: &TokenPair) -> TokenPairForm<'static> {
        TokenPairForm {
            access: WipedStr::of(&pair.access),
            refresh: pair.refresh.as_ref().map(WipedStr::of),
            received_at_ms: pair.received_at,
            lifetime_s: pair.lifetime.map(|lifetime| lifetime.as_secs()),
        }
    }

    fn pair(&self) -> Option<TokenPair> {
        Some(TokenPair {
            access: Secret::new(&self.access.0).ok()?,
            refresh: self.refresh.as_ref().map(|text| Secret::new(&text.0)).transpose().ok()?,
            received_at: self.received_at_ms,
            lifetime: self.lifetime_s.map(Duration::from_secs),
        })
    }
}
