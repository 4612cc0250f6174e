//! Records the open windows of a budget, and restores them in a new process.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::budget::credential_budget::CredentialBudget;
use crate::budget::credential_budget::operations::Operation;
use crate::budget::used_windows::{ANY_PROCESS, UsedWindow, UsedWindows};
use crate::ratelimit::Settings;
use crate::ratelimit::usage_headers::LimitReading;
use crate::time::milliseconds;

impl CredentialBudget {
    /// Adds the open windows and blocks of the budget and of its operations to `used`. `now` is milliseconds since 1970. With
    /// `leaves_room`, a remaining count of up to a tenth of the limit is recorded as 0. It may be used before the next write, and
    /// a process may end without notice.
    ///
    /// Gateways that share limits keep them in the limit store, so their budgets record nothing.
    pub(in crate::budget) fn record(&self, budget: u128, used: &mut UsedWindows, now: u64, leaves_room: bool) {
        if self.member.is_some() {
            return;
        }
        let of_credential = UsedWindow {
            budget,
            operation: None,
            is_learned: false,
            name: None,
            limit: None,
            remaining: 0,
            ends: now,
            process: ANY_PROCESS,
        };
        self.record_as(&of_credential, used, now, leaves_room);
        for (key, operation) in &*self.operations() {
            if let Operation::Separate { budget: own, learned, .. } = operation {
                let operation = Some((*key, own.settings().limit));
                let of_operation = UsedWindow { operation, is_learned: learned.is_some(), ..of_credential };
                own.record_as(&of_operation, used, now, leaves_room);
            }
        }
    }

    /// Adds an entry like `begun` for each open window and block.
    fn record_as(&self, begun: &UsedWindow, used: &mut UsedWindows, now: u64, leaves_room: bool) {
        let ends = |left: Duration| now.saturating_add(milliseconds(left));
        let at = self.clock.now();
        let mut state = self.lock();
        for LimitReading { name, limit, remaining, reset } in state.limiter.open_windows(at) {
            let room = if leaves_room { limit.unwrap_or_default() / 10 } else { 0 };
            let remaining = if remaining <= room { 0 } else { remaining };
            used.add(UsedWindow { name: Some(name), limit, remaining, ends: ends(reset), ..begun.clone() });
        }
        if let Some(left) = state.limiter.block_left(at) {
            used.add(UsedWindow { ends: ends(left), ..begun.clone() });
        }
    }

    /// Restores the entries of an earlier process, at `now`, in milliseconds since 1970.
    pub(in crate::budget) fn restore(self: &Arc<Self>, entries: Vec<UsedWindow>, now: u64) {
        for entry in entries {
            let left = Duration::from_millis(entry.ends.saturating_sub(now));
            match entry.operation {
                None => self.restore_entry(&entry, left),
                Some((key, limit)) => {
                    self.restored_operation(key, limit, entry.is_learned).restore_entry(&entry, left);
                }
            }
        }
    }

    fn restore_entry(&self, entry: &UsedWindow, left: Duration) {
        let at = self.clock.now();
        let mut state = self.lock();
        match entry.name {
            Some(name) => {
                let seen = LimitReading { name, limit: entry.limit, remaining: entry.remaining, reset: left };
                state.limiter.restore_window(&seen, at);
            }
            None => state.limiter.restore_block(left, at),
        }
    }

    /// Returns the budget of an operation in the record of an earlier process. If the catalog listed it then, the next request
    /// shows whether it still does.
    fn restored_operation(self: &Arc<Self>, key: u64, limit: u32, is_learned: bool) -> Arc<Self> {
        let settings = Settings { limit, learn_limit: is_learned, ..self.settings() };
        let learned = is_learned.then_some(limit);
        let mut operations = self.operations();
        self.has_learned.fetch_or(is_learned, Ordering::Relaxed);
        let fresh = || Operation::Separate { budget: self.new_operation(key, settings), name: None, learned };
        match operations.entry(key).or_insert_with(fresh) {
            Operation::Separate { budget, .. } => budget.clone(),
            Operation::OfCredential => self.clone(),
        }
    }
}
