//! What is recorded of a budget's open windows, and what a new process makes of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::Settings;
use super::super::headers::Seen;
use super::super::used::{Entry, Used};
use super::Budget;
use super::operations::Operation;

impl Budget {
    /// Adds its open windows and blocks to `used`, and those of its operations. `now` is milliseconds since 1970. What could be
    /// sent before the next record is written is left out where `leaves_room` is set: a process that ends without notice
    /// writes no more.
    ///
    /// Gateways that share limits keep them in their store: a budget there records nothing.
    pub(in super::super) fn record(&self, budget: u128, used: &mut Used, now: u64, leaves_room: bool) {
        if self.member.is_some() {
            return;
        }
        self.record_as((budget, None), used, now, leaves_room);
        for (key, operation) in &*self.operations() {
            if let Operation::Own { budget: own, .. } = operation {
                let limit = own.settings().limit;
                own.record_as((budget, Some((*key, limit))), used, now, leaves_room);
            }
        }
    }

    fn record_as(&self, (budget, operation): (u128, Option<(u64, u32)>), used: &mut Used, now: u64, leaves_room: bool) {
        let ends = |left: Duration| now.saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        let at = self.clock.now();
        let mut state = self.lock();
        for Seen { name, limit, remaining, reset } in state.machine.open_windows(at) {
            let room = if leaves_room { limit.unwrap_or_default() / 10 } else { 0 };
            let remaining = if remaining <= room { 0 } else { remaining };
            used.add(Entry { budget, operation, name: Some(name), limit, remaining, ends: ends(reset) });
        }
        if let Some(left) = state.machine.block_left(at) {
            used.add(Entry { budget, operation, name: None, limit: None, remaining: 0, ends: ends(left) });
        }
    }

    /// Goes on from what a process before this one has recorded, read at `now`, in milliseconds since 1970.
    pub(in super::super) fn go_on_from(self: &Arc<Self>, entries: Vec<Entry>, now: u64) {
        for entry in entries {
            let left = Duration::from_millis(entry.ends.saturating_sub(now));
            match entry.operation {
                None => self.go_on_from_one(&entry, left),
                Some((key, limit)) => self.restored_operation(key, limit).go_on_from_one(&entry, left),
            }
        }
    }

    fn go_on_from_one(&self, entry: &Entry, left: Duration) {
        let at = self.clock.now();
        let mut state = self.lock();
        match entry.name {
            Some(name) => {
                let seen = Seen { name, limit: entry.limit, remaining: entry.remaining, reset: left };
                state.machine.restore_window(&seen, at);
            }
            None => state.machine.restore_block(left, at),
        }
    }

    fn restored_operation(self: &Arc<Self>, key: u64, limit: u32) -> Arc<Self> {
        let settings = Settings { limit, learn_limit: true, ..self.settings() };
        let mut operations = self.operations();
        self.has_learned.store(true, Ordering::Relaxed);
        let fresh = || Operation::Own { budget: self.new_operation(key, settings), name: None, learned: Some(limit) };
        match operations.entry(key).or_insert_with(fresh) {
            Operation::Own { budget, .. } => budget.clone(),
            Operation::OfCredential => self.clone(),
        }
    }
}
