//! The scope of the limits in a response: the credential, or one operation.
//!
//! A response carries either the credential's limit names or one name of the operation's own, never both (FACTS §2). The
//! names of operations are not known beforehand, so what is not the credential's is the operation's.

use smallvec::SmallVec;

use super::usage_headers::{LimitReading, MAX_NAMES, name_hash};

/// What a response's limits are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The credential: all its requests count against them.
    Credential,
    /// The operation that was asked for.
    Operation,
}

/// What is known of a limit name beside the credential's own responses.
#[derive(Debug, Clone, Copy, Default)]
pub struct NameSightings {
    /// The operation has a limit of its own.
    pub here: bool,
    /// Responses of another operation, which was taken to have a limit of its own, carry the same name.
    pub elsewhere: bool,
}

/// The limit names that a credential's responses usually carry.
#[derive(Debug, Default)]
pub struct LimitNames {
    usual: SmallVec<[u64; 1]>,
}

impl LimitNames {
    /// Whether all these limits have names that the credential usually has.
    pub fn are_usual(&self, told: &[LimitReading]) -> bool {
        told.iter().all(|seen| self.usual.contains(&seen.name))
    }

    /// What the limits of a response are about, where the credential is granted `limit` requests a window.
    ///
    /// `Default`, limits without a name, and several limits at once are the credential's. Until one of those has come, a
    /// single unknown name may be that of a key with a limit of its own: then it grants at least half of what the credential
    /// is taken to have, as no operation does (FACTS §2), or several operations carry it.
    pub fn scope(&self, told: &[LimitReading], limit: u32, known: NameSightings) -> Scope {
        let [seen] = told else { return Scope::Credential };
        let is_default = seen.name == name_hash("") || seen.name == name_hash("default");
        if is_default || self.usual.contains(&seen.name) {
            return Scope::Credential;
        }
        let is_wide = seen.limit.is_none_or(|own| own >= limit / 2);
        let is_credential = match (self.usual.is_empty(), known.here) {
            (_, true) => known.elsewhere && is_wide,
            (true, false) => is_wide || known.elsewhere,
            // The key may have been given other limits.
            (false, false) => is_wide && known.elsewhere,
        };
        if is_credential { Scope::Credential } else { Scope::Operation }
    }

    /// Notes the names of a response whose limits are the credential's. A response has all of them.
    pub fn note(&mut self, told: &[LimitReading]) {
        self.usual = told.iter().take(MAX_NAMES).map(|seen| seen.name).collect();
    }
}
