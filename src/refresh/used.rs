//! Stores the record of used windows: periodically, and once at the end of the process.
//!
//! What is written while it serves leaves room for requests that are sent before the next write. What is written at the end is
//! exact, and replaces that.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::budget::BudgetRegistry;
use crate::budget::used_windows::UsedWindows;
use crate::refresh::{Keeper, wall};
use crate::vault::StoreFault;

/// The name of the record. No credential has it: their names hold no `/`.
pub const RECORD: &str = "budgets/used";

/// How often the record is written at most, as a part of the window.
const PART_OF_WINDOW: u32 = 60;
const OFTEN: Duration = Duration::from_millis(50);
const RARELY: Duration = Duration::from_secs(1);

/// How long the start and the end of the process wait for the store.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Tries to write while other processes write, too.
const MAX_WAITS: usize = 3;

impl Keeper {
    /// Has the budgets of `registry` go on from what an earlier process has recorded. Called before the first request.
    pub async fn restore_used(&self, registry: &BudgetRegistry, window: Duration) {
        match timeout(TIMEOUT, self.vault.get(RECORD)).await {
            Ok(Ok(Some(kept))) => {
                let used = UsedWindows::from_bytes(&kept.plain).of_all();
                registry.restore(used.plausible(wall(), window), wall());
            }
            Ok(Ok(None)) => {}
            Ok(Err(fault)) => tracing::warn!(%fault, "cannot read what is used of rate limit windows"),
            Err(_) => tracing::warn!("the token store did not tell in time what is used of rate limit windows"),
        }
    }

    /// Records what is used at the end of the process, when nothing is sent any more. This is the process's last record.
    pub async fn record_used_at_end(&self, registry: &BudgetRegistry) {
        let record = async {
            let _turn = self.recording.acquire().await;
            self.recording.close();
            self.record(registry.used(wall(), false)).await
        };
        match timeout(TIMEOUT, record).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => tracing::warn!(%fault, "cannot store what is used of rate limit windows"),
            Err(_) => tracing::warn!("the token store took too long to store what is used of rate limit windows"),
        }
    }

    /// Records what is used for as long as the process lasts.
    pub(super) async fn record_used(&self) {
        let mut last = UsedWindows::default();
        loop {
            let cal_com = self.cal_com.load_full();
            let Some(budgets) = &cal_com.budgets else { return };
            let (registry, window) = (budgets.registry.clone(), budgets.settings.window);
            drop(cal_com);
            let mut rounds = interval((window / PART_OF_WINDOW).clamp(OFTEN, RARELY));
            rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
            rounds.tick().await;
            rounds.tick().await;
            let Ok(_turn) = self.recording.acquire().await else { return };
            let used = registry.used(wall(), true);
            if used == last || used.is_empty() {
                continue;
            }
            match self.record(used.clone()).await {
                Ok(()) => last = used,
                Err(fault) => tracing::debug!(%fault, "cannot store what is used of rate limit windows"),
            }
        }
    }

    /// Writes what this process has `used` in place of what it wrote before, beside what other processes have recorded of windows
    /// that are open.
    async fn record(&self, used: UsedWindows) -> Result<(), StoreFault> {
        let own = used.of_process(self.process);
        for _ in 0..MAX_WAITS {
            let kept = self.vault.get(RECORD).await?;
            let before = kept.as_ref().map(|kept| UsedWindows::from_bytes(&kept.plain)).unwrap_or_default();
            let mut whole = own.clone();
            whole.merge(before.clone().of_others(self.process), wall());
            if whole == before {
                return Ok(());
            }
            if self.vault.swap(RECORD, kept.map(|kept| kept.version), &whole.to_bytes()).await? {
                return Ok(());
            }
        }
        Err(StoreFault::Unusable(format!("other processes changed `{RECORD}` during {MAX_WAITS} attempts to write it")))
    }
}
