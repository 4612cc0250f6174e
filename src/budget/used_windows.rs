//! Record of the open windows, with which a new process continues.
//!
//! A new process does not know the requests of the one before it. Without this record its first requests could exceed a window
//! that is nearly used up. All times are absolute, because another process reads the record.
//!
//! Several processes write one record. Each replaces its own entries, which are exact when it ends. It keeps those of the others
//! as far as the record has capacity for them beside its own.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::headers::times::TRUSTED_WINDOWS;
use crate::time::milliseconds;

/// Maximum number of entries in a record.
const MAX_ENTRIES: usize = 1000;

/// Largest difference between two processes in the end of the same window, 2.5 s: Cal.com reports whole seconds (FACTS §2).
const SAME_WINDOW_MS: u64 = 2500;

/// Process of an entry that several processes know of, or that an older release wrote.
pub const ANY_PROCESS: u64 = 0;

/// The open windows of all budgets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsedWindows {
    entries: BTreeMap<Key, UsedWindow>,
}

/// The open window of one limit, or a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedWindow {
    /// Hash of the credential, by which Cal.com counts.
    #[serde(with = "hexadecimal")]
    pub budget: u128,
    /// The operation and its requests per window, if it has a limit of its own.
    pub operation: Option<(u64, u32)>,
    /// Whether the operation's limit was learned from responses. Otherwise the catalog lists it.
    #[serde(default = "said_by_responses")]
    pub is_learned: bool,
    /// Hash of the limit's name; `None` for a block of all limits.
    pub name: Option<u64>,
    /// Requests per window.
    pub limit: Option<u32>,
    /// Remaining requests.
    pub remaining: u32,
    /// Latest end, in milliseconds since 1970.
    pub ends: u64,
    /// Process that wrote the entry.
    #[serde(default)]
    pub process: u64,
}

/// Key of an entry. The budget comes first, so all entries of one budget are adjacent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    budget: u128,
    operation: Option<u64>,
    name: Option<u64>,
    process: u64,
}

impl Key {
    fn of(entry: &UsedWindow) -> Self {
        let operation = entry.operation.map(|(key, _)| key);
        Self { budget: entry.budget, operation, name: entry.name, process: entry.process }
    }

    fn first(budget: u128) -> Self {
        Self { budget, operation: None, name: None, process: 0 }
    }

    fn last(budget: u128) -> Self {
        Self { budget, operation: Some(u64::MAX), name: Some(u64::MAX), process: u64::MAX }
    }
}

impl UsedWindows {
    /// Adds an entry. Of two entries of one process for the same window, the smaller remaining count holds. In a full record, the
    /// same applies to entries of different processes.
    pub fn add(&mut self, entry: UsedWindow) {
        let key = Key::of(&entry);
        if !self.is_full() && !self.entries.contains_key(&key) {
            self.entries.insert(key, entry);
            return;
        }
        let by_any = Key { process: 0, ..key }..=Key { process: u64::MAX, ..key };
        let by_other = || self.entries.range(by_any).next().map(|(key, _)| *key);
        let key = if self.entries.contains_key(&key) { Some(key) } else { by_other() };
        let Some(known) = key.and_then(|key| self.entries.get_mut(&key)) else { return };
        if entry.ends.abs_diff(known.ends) <= SAME_WINDOW_MS {
            known.remaining = known.remaining.min(entry.remaining);
            known.ends = known.ends.max(entry.ends);
        } else if entry.ends > known.ends {
            *known = UsedWindow { process: known.process, ..entry };
        }
    }

    /// Adds the entries of another record that are not over at `now`, in milliseconds since 1970.
    pub fn merge(&mut self, other: Self, now: u64) {
        other.entries.into_values().filter(|entry| entry.ends > now).for_each(|entry| self.add(entry));
    }

    /// Keeps the entries that can be true at `now`, in milliseconds since 1970. Such an entry is not over, and does not end later
    /// than any window that Cal.com reports. Only a process that restores the record calls this. A process that writes it keeps
    /// the other entries, because its own calendar may be wrong.
    #[must_use]
    pub fn plausible(mut self, now: u64, window: Duration) -> Self {
        let longest = milliseconds(window * TRUSTED_WINDOWS);
        self.entries.retain(|_, entry| entry.ends > now && entry.ends - now <= longest);
        self
    }

    /// Marks all entries as written by `process`.
    #[must_use]
    pub fn of_process(self, process: u64) -> Self {
        let mut all = Self::default();
        self.entries.into_values().for_each(|entry| all.add(UsedWindow { process, ..entry }));
        all
    }

    /// Combines the entries of all processes. Of one window, the smallest remaining count holds.
    #[must_use]
    pub fn of_all(self) -> Self {
        self.of_process(ANY_PROCESS)
    }

    /// Keeps the entries of all other processes.
    #[must_use]
    pub fn of_others(mut self, process: u64) -> Self {
        self.entries.retain(|key, _| key.process != process);
        self
    }

    /// Returns whether the record has no capacity for another entry.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= MAX_ENTRIES
    }

    /// Returns whether the record has no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Removes the entries of one budget, and returns them.
    pub fn take(&mut self, budget: u128) -> Vec<UsedWindow> {
        let own = self.entries.range(Key::first(budget)..=Key::last(budget));
        let own: Vec<Key> = own.map(|(key, _)| *key).collect();
        own.iter().filter_map(|key| self.entries.remove(key)).collect()
    }

    /// Returns the stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let entries: Vec<&UsedWindow> = self.entries.values().collect();
        serde_json::to_vec(&Stored { entries }).unwrap_or_default()
    }

    /// Reads the stored form. A form that this version cannot read becomes an empty record.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let stored: Stored<Vec<UsedWindow>> = serde_json::from_slice(bytes).unwrap_or_default();
        let mut used = Self::default();
        stored.entries.into_iter().for_each(|entry| used.add(entry));
        used
    }
}

/// Stored form of a record.
#[derive(Default, Serialize, Deserialize)]
struct Stored<Entries> {
    entries: Entries,
}

/// Meaning of an entry of an older release.
fn said_by_responses() -> bool {
    true
}

/// Hexadecimal form of a 128-bit number, because JSON readers lose digits of large numbers.
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
