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

/// The name a record is stored under: a credential's, and the managed user's where it is of one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordName {
    /// The credential's name in the config.
    pub credential: Arc<str>,
    /// The managed user.
    pub user: Option<UserId>,
}

impl RecordName {
    /// The credential itself.
    pub fn of(credential: &str) -> Self {
        Self { credential: credential.into(), user: None }
    }

    /// A managed user of the credential.
    pub fn of_user(credential: &str, user: UserId) -> Self {
        Self { credential: credential.into(), user: Some(user) }
    }

    /// Reads a name as it stands in a store. Names of credentials hold no `/`.
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

/// An access token and what renews it.
#[derive(Debug, Clone)]
pub struct TokenPair {
    /// What is injected.
    pub access: Secret,
    /// What the next pair is had with; an API key has none.
    pub refresh: Option<Secret>,
    /// When it was received, in milliseconds since 1970 by the calendar of the replica that received it.
    pub received_at: u64,
    /// How long the access token is good from then on. `None`: until Cal.com refuses it.
    pub lifetime: Option<Duration>,
}

/// What a renewal in progress does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// It uses the refresh token.
    Refresh,
    /// The refresh token was refused; it uses that of the previous pair, as the current one never worked.
    RefreshPrevious,
    /// It asks for a new pair without one (force-refresh).
    Recover,
}

/// A renewal that began and of which no end is known. Who finds it without its lock held knows that the process that
/// began it is gone, or never learnt what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The fence of the lock under which it began.
    pub fence: u64,
    /// What it does.
    pub step: Step,
    /// Whether an earlier one ended unknown, so that the refresh token may be used up already.
    pub in_doubt: bool,
}

/// What is stored of one renewable credential.
#[derive(Debug, Clone, Default)]
pub struct StoredCredential {
    /// Counts the pairs this credential has had.
    pub generation: u64,
    /// The pair in use.
    pub current: Option<TokenPair>,
    /// The one before, until the current one has worked.
    pub previous: Option<TokenPair>,
    /// A renewal without a known end.
    pub pending: Option<Pending>,
    /// Why nothing but a login (or an import) makes this credential work again.
    pub needs_login: Option<String>,
    /// Why the last renewal came to nothing, although the next may not.
    pub fault: Option<String>,
    /// For an API key: the fingerprint of the configured one that the stored one replaced. Another one in the
    /// configuration is newer than what is stored.
    pub replaces: Option<String>,
    /// Consecutive renewals that Cal.com refused without saying that the refresh token is no good.
    pub rejections: u32,
}

impl StoredCredential {
    /// What the API key is known by that took the place of the configured one, if there is one.
    pub(super) fn replacing_key(&self) -> Option<u128> {
        self.replaces.as_ref()?;
        Some(self.current.as_ref()?.access.expose(|key| credential_hash(&[key])))
    }
}

/// The text of a secret in the form that is sealed: read where it lies, which an `Option<Cow<str>>` of serde's is not, and
/// wiped where it had to be copied.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct WipedStr<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> WipedStr<'a> {
    /// Wraps a text, which is wiped if it is a copy.
    pub(super) fn new(text: Cow<'a, str>) -> Self {
        Self(text)
    }

    /// The text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl WipedStr<'_> {
    fn of(secret: &Secret) -> WipedStr<'static> {
        WipedStr(Cow::Owned(secret.expose(str::to_owned)))
    }

    /// Whether there is no copy of it to be wiped.
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

/// The form of a pair.
#[derive(Serialize, Deserialize)]
pub struct TokenPairForm<'a> {
    /// The access token.
    #[serde(borrow)]
    pub access: WipedStr<'a>,
    /// The refresh token.
    #[serde(borrow)]
    pub refresh: Option<WipedStr<'a>>,
    received_at_ms: u64,
    lifetime_s: Option<u64>,
}

/// The form of an entry. Fields that are not known are an error: they are of a newer calgate, and writing the record
/// without them would lose them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordForm<'a> {
    generation: u64,
    /// The pair in use.
    #[serde(borrow)]
    pub current: Option<TokenPairForm<'a>>,
    #[serde(borrow)]
    previous: Option<TokenPairForm<'a>>,
    pending: Option<Pending>,
    needs_login: Option<String>,
    fault: Option<String>,
    replaces: Option<String>,
    /// Written only where there are any, so that an older version of calgate reads all other records.
    #[serde(default, skip_serializing_if = "is_zero")]
    rejections: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl StoredCredential {
    /// Whether it is of a credential with these `renewal_method`. A key that took the place of a configured one is of that one
    /// alone: of no other key, and of nothing that the credential is later under the same name. Nor is a grant a key's.
    pub fn is_of(&self, renewal_method: &RenewalMethod) -> bool {
        let configured = match renewal_method {
            RenewalMethod::Key { configured } => Some(configured),
            RenewalMethod::OAuth(_) | RenewalMethod::Managed(_) => None,
        };
        self.replaces.as_ref() == configured
    }

    /// The bytes to seal.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Room for everything at once: a buffer that grows leaves copies behind.
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

    /// Reads what was sealed. `None` if it is nothing that this version of calgate writes.
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
