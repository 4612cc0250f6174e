//! Used windows: what a process knows of Cal.com's open windows, in a form that outlives it.
//!
//! A process that starts knows nothing of what the one before it sent. Without this record its first requests could exceed
//! a window that is nearly used up. All times are absolute, because the record is read by another process.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::headers::times::TRUSTED_WINDOWS;

/// Entries that a record holds at most.
const MAX_ENTRIES: usize = 1000;

/// Two processes that tell the same window differ by less in when it ends: seconds are whole ones (FACTS §2).
const SAME_WINDOW_MS: u64 = 2500;

/// The open windows of all budgets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    entries: Vec<Entry>,
}

/// The open window of one limit, or a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What Cal.com counts by: the credential, as a hash.
    #[serde(with = "hexadecimal")]
    pub budget: u128,
    /// The operation, where it has a limit of its own, and how many requests a window that grants.
    pub operation: Option<(u64, u32)>,
    /// The limit's name, as a hash; `None`: a block, whatever the limit.
    pub name: Option<u64>,
    /// Requests a window.
    pub limit: Option<u32>,
    /// Requests that are left.
    pub remaining: u32,
    /// When it ends at the latest, in milliseconds since 1970.
    pub ends: u64,
}

impl Entry {
    /// Whether both are about the same limit.
    fn is_like(&self, other: &Self) -> bool {
        let key = |entry: &Self| (entry.budget, entry.operation.map(|(key, _)| key), entry.name);
        key(self) == key(other)
    }
}

impl Used {
    /// Adds an entry. Of two about the same window, the least that is left holds.
    pub fn add(&mut self, entry: Entry) {
        let Some(known) = self.entries.iter_mut().find(|known| known.is_like(&entry)) else {
            if self.entries.len() < MAX_ENTRIES {
                self.entries.push(entry);
            }
            return;
        };
        if entry.ends.abs_diff(known.ends) <= SAME_WINDOW_MS {
            known.remaining = known.remaining.min(entry.remaining);
            known.ends = known.ends.max(entry.ends);
        } else if entry.ends > known.ends {
            *known = entry;
        }
    }

    /// Adds all of another record that is not over at `now`, in milliseconds since 1970, and can be true.
    pub fn merge(&mut self, other: Self, now: u64, window: Duration) {
        let longest = u64::try_from((window * TRUSTED_WINDOWS).as_millis()).unwrap_or(u64::MAX);
        let is_open = |entry: &Entry| entry.ends > now && entry.ends - now <= longest;
        other.entries.into_iter().filter(is_open).for_each(|entry| self.add(entry));
    }

    /// Whether no further budget can be recorded.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= MAX_ENTRIES
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes the entries of one budget.
    pub fn take(&mut self, budget: u128) -> Vec<Entry> {
        let (own, others) = std::mem::take(&mut self.entries).into_iter().partition(|entry| entry.budget == budget);
        self.entries = others;
        own
    }

    /// The form that is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the form that is stored. What another version wrote and this one cannot read is nothing.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }
}

/// A number of 128 bits, which JSON readers lose digits of.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(number: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{number:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(de::Error::custom)
    }
}
