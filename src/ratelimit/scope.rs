//! Scope of the limits in a response: the credential, or one operation.
//!
//! A response carries either the credential's limit names or one name of the operation, never both (FACTS §2). The names of
//! operations are not known beforehand, so a name that is not the credential's is the operation's.

use smallvec::SmallVec;

use super::usage_headers::{LimitReading, MAX_NAMES, name_hash};

/// Scope of the limits in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The credential: all its requests count.
    Credential,
    /// The operation of the request.
    Operation,
}

/// Earlier sightings of a limit name, besides the usual names of the credential.
#[derive(Debug, Clone, Copy, Default)]
pub struct NameSightings {
    /// The operation has a limit of its own.
    pub here: bool,
    /// Responses of another operation with a learned limit carry the same name.
    pub elsewhere: bool,
}

/// Limit names that the responses to a credential usually carry.
#[derive(Debug, Default)]
pub struct LimitNames {
    usual: SmallVec<[u64; 1]>,
}

impl LimitNames {
    /// Returns whether all these limits have usual names.
    pub fn are_usual(&self, told: &[LimitReading]) -> bool {
        told.iter().all(|seen| self.usual.contains(&seen.name))
    }

    /// Returns the scope of the limits of a response. The credential is granted `limit` requests per window.
    ///
    /// `Default`, limits without a name, and several limits at once belong to the credential. Until one of those has come, a
    /// single unknown name may belong to a key with a limit of its own. It does if it grants at least half of the credential's
    /// limit, as no operation does (FACTS §2), or if several operations carry it.
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
            // The key may have received other limits.
            (false, false) => is_wide && known.elsewhere,
        };
        if is_credential { Scope::Credential } else { Scope::Operation }
    }

    /// Records the names in a response whose limits are the credential's. A response has all of them.
    pub fn note(&mut self, told: &[LimitReading]) {
        self.usual = told.iter().take(MAX_NAMES).map(|seen| seen.name).collect();
    }
}
