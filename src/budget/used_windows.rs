//! Record of the open windows, with which a new process continues.
//!
//! A process that starts knows nothing of what the one before it sent. Without this record its first requests could exceed
//! a window that is nearly used up. All times are absolute, because the record is read by another process.
//!
//! Several processes write one record. Each replaces its own entries, which are exact when it ends, and keeps those
//! of the others as far as the record has room beside its own.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::headers::times::TRUSTED_WINDOWS;
use crate::time::milliseconds;

/// Entries that a record holds at most.
const MAX_ENTRIES: usize = 1000;

/// Two processes that tell the same window differ by less in when it ends: seconds are whole ones (FACTS §2).
const SAME_WINDOW_MS: u64 = 2500;

/// The process of an entry that several know of, or that was written by a release that does not say.
pub const ANY_PROCESS: u64 = 0;

/// The open windows of all budgets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsedWindows {
    entries: BTreeMap<Key, UsedWindow>,
}

/// The open window of one limit, or a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedWindow {
    /// What Cal.com counts by: the credential, as a hash.
    #[serde(with = "hexadecimal")]
    pub budget: u128,
    /// The operation, where it has a limit of its own, and how many requests a window that grants.
    pub operation: Option<(u64, u32)>,
    /// Whether responses told of the operation's limit. Otherwise the catalog lists it.
    #[serde(default = "said_by_responses")]
    pub is_learned: bool,
    /// The limit's name, as a hash; `None`: a block, whatever the limit.
    pub name: Option<u64>,
    /// Requests a window.
    pub limit: Option<u32>,
    /// Requests that are left.
    pub remaining: u32,
    /// When it ends at the latest, in milliseconds since 1970.
    pub ends: u64,
    /// Which process knows it.
    #[serde(default)]
    pub process: u64,
}

/// What an entry is found by. The budget comes first: all entries of one lie together.
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
    /// Adds an entry. Of two about the same window by the same process, the least that is left holds. Where the record is full,
    /// the same goes for two by different processes.
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

    /// Keeps the entries that can be true at `now`, in milliseconds since 1970: they are not over, and do not end later than any window
    /// that Cal.com reports. For the process that uses them, not for the one that writes: its calendar may be wrong.
    #[must_use]
    pub fn plausible(mut self, now: u64, window: Duration) -> Self {
        let longest = milliseconds(window * TRUSTED_WINDOWS);
        self.entries.retain(|_, entry| entry.ends > now && entry.ends - now <= longest);
        self
    }

    /// The same record, written by `process`.
    #[must_use]
    pub fn of_process(self, process: u64) -> Self {
        let mut all = Self::default();
        self.entries.into_values().for_each(|entry| all.add(UsedWindow { process, ..entry }));
        all
    }

    /// What all processes know together: of one window, the least that is left holds.
    #[must_use]
    pub fn of_all(self) -> Self {
        self.of_process(ANY_PROCESS)
    }

    /// What other processes than this one have written.
    #[must_use]
    pub fn of_others(mut self, process: u64) -> Self {
        self.entries.retain(|key, _| key.process != process);
        self
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
    pub fn take(&mut self, budget: u128) -> Vec<UsedWindow> {
        let own = self.entries.range(Key::first(budget)..=Key::last(budget));
        let own: Vec<Key> = own.map(|(key, _)| *key).collect();
        own.iter().filter_map(|key| self.entries.remove(key)).collect()
    }

    /// The form that is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let entries: Vec<&UsedWindow> = self.entries.values().collect();
        serde_json::to_vec(&Stored { entries }).unwrap_or_default()
    }

    /// Reads the form that is stored. What another version wrote and this one cannot read is nothing.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let stored: Stored<Vec<UsedWindow>> = serde_json::from_slice(bytes).unwrap_or_default();
        let mut used = Self::default();
        stored.entries.into_iter().for_each(|entry| used.add(entry));
        used
    }
}

/// The form of a record in the store.
#[derive(Default, Serialize, Deserialize)]
struct Stored<Entries> {
    entries: Entries,
}

/// What a record means that does not say.
fn said_by_responses() -> bool {
    true
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
