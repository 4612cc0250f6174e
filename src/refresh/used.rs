//! Record of used windows in the token store: written periodically, and once at the end of the process.
//!
//! A periodic record includes a reserve for the requests before the next write. The last record is exact, and replaces it.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::budget::BudgetRegistry;
use crate::budget::used_windows::UsedWindows;
use crate::refresh::{TokenRefresher, unix_millis};
use crate::vault::VaultError;

/// Name of the record. No credential has this name, because names of credentials have no `/`.
pub const RECORD: &str = "budgets/used";

/// Maximum number of writes in a window, and the bounds of the interval between writes.
const WRITES_PER_WINDOW: u32 = 60;
const MIN_INTERVAL: Duration = Duration::from_millis(50);
const MAX_INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait for the token store at the start and at the end of the process.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of attempts to write while other processes write.
const MAX_ATTEMPTS: usize = 3;

impl TokenRefresher {
    /// Applies the record of an earlier process to the budgets of `registry`. Called before the first request.
    pub async fn restore_used(&self, registry: &BudgetRegistry, window: Duration) {
        match timeout(TIMEOUT, self.vault.get(RECORD)).await {
            Ok(Ok(Some(kept))) => {
                let used = UsedWindows::from_bytes(&kept.plain).of_all();
                registry.restore(used.plausible(unix_millis(), window), unix_millis());
            }
            Ok(Ok(None)) => {}
            Ok(Err(fault)) => tracing::warn!(%fault, "cannot read the record of used rate limit windows"),
            Err(_) => tracing::warn!("the token store took too long to read the record of used rate limit windows"),
        }
    }

    /// Writes the last record of the process. Called when no request can be sent any more.
    pub async fn record_used_at_end(&self, registry: &BudgetRegistry) {
        let record = async {
            let _turn = self.recording.acquire().await;
            self.recording.close();
            self.record(registry.used(unix_millis(), false)).await
        };
        match timeout(TIMEOUT, record).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => tracing::warn!(%fault, "cannot store the record of used rate limit windows"),
            Err(_) => tracing::warn!("the token store took too long to store the record of used rate limit windows"),
        }
    }

    /// Writes the record periodically until the end of the process.
    pub(super) async fn record_used(&self) {
        let mut last = UsedWindows::default();
        loop {
            let cal_client = self.cal_client.load_full();
            let Some(budgets) = &cal_client.budgets else { return };
            let (registry, window) = (budgets.registry.clone(), budgets.settings.window);
            drop(cal_client);
            let mut rounds = interval((window / WRITES_PER_WINDOW).clamp(MIN_INTERVAL, MAX_INTERVAL));
            rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
            rounds.tick().await;
            rounds.tick().await;
            let Ok(_turn) = self.recording.acquire().await else { return };
            let used = registry.used(unix_millis(), true);
            if used == last || used.is_empty() {
                continue;
            }
            match self.record(used.clone()).await {
                Ok(()) => last = used,
                Err(fault) => tracing::debug!(%fault, "cannot store the record of used rate limit windows"),
            }
        }
    }

    /// Writes what this process has `used` in place of what it wrote before, beside what other processes have recorded of windows
    /// that are open.
    async fn record(&self, used: UsedWindows) -> Result<(), VaultError> {
        let own = used.of_process(self.process);
        for _ in 0..MAX_ATTEMPTS {
            let kept = self.vault.get(RECORD).await?;
            let before = kept.as_ref().map(|kept| UsedWindows::from_bytes(&kept.plain)).unwrap_or_default();
            let mut whole = own.clone();
            whole.merge(before.clone().of_others(self.process), unix_millis());
            if whole == before {
                return Ok(());
            }
            if self.vault.swap(RECORD, kept.map(|kept| kept.version), &whole.to_bytes()).await? {
                return Ok(());
            }
        }
        Err(VaultError::Unusable(format!(
            "other processes changed `{RECORD}` during {MAX_ATTEMPTS} attempts to write it"
        )))
    }
}
