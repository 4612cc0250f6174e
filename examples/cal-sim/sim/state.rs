//! State that all connections of a simulated Cal.com share.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::clock::Clock;
use super::options::Options;
use super::seen::Log;
use super::tokens::Tokens;
use super::trackers::Trackers;

/// Counts of token operations.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct TokenCounts {
    /// Codes that were exchanged for an OAuth pair.
    pub code_exchanges: u64,
    /// OAuth pairs that were refreshed.
    pub oauth_refreshes: u64,
    /// Managed users that were created, each with a pair.
    pub managed_users: u64,
    /// Pairs of managed users that were refreshed.
    pub managed_refreshes: u64,
    /// Pairs of managed users that were replaced by force.
    pub force_refreshes: u64,
    /// API keys that were replaced.
    pub api_key_refreshes: u64,
    /// Refused operations of any kind.
    pub refused: u64,
}

/// State of the simulation.
#[derive(Debug)]
pub(super) struct State {
    pub(super) options: Options,
    pub(super) clock: Clock,
    pub(super) trackers: Trackers,
    pub(super) log: Log,
    /// Whether the simulation closes every connection at once.
    pub(super) down: watch::Sender<bool>,
    /// Number of responses to token operations that are still to be lost.
    pub(super) answers_to_lose: AtomicU32,
    api_keys: Mutex<HashSet<String>>,
    tokens: Mutex<Tokens>,
    counts: Mutex<TokenCounts>,
}

impl State {
    pub(super) fn new(options: Options) -> Self {
        Self {
            clock: Clock::new(),
            trackers: Trackers::new(options.limits.clone(), options.credentials.api_keys.clone()),
            log: Log::new(options.keep_seen),
            down: watch::Sender::new(false),
            answers_to_lose: AtomicU32::new(0),
            api_keys: Mutex::new(options.credentials.api_keys.iter().cloned().collect()),
            tokens: Mutex::new(Tokens::new(options.tokens.clone())),
            counts: Mutex::default(),
            options,
        }
    }

    pub(super) fn api_keys(&self) -> MutexGuard<'_, HashSet<String>> {
        self.api_keys.lock()
    }

    pub(super) fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock()
    }

    pub(super) fn counts(&self) -> MutexGuard<'_, TokenCounts> {
        self.counts.lock()
    }

    /// Returns whether this response to a token operation is to be lost.
    pub(super) fn loses_answer(&self) -> bool {
        let fewer = |left: u32| left.checked_sub(1);
        self.answers_to_lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok()
    }
}
