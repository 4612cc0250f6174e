//! Renewal of one credential: lock, `pending` record, call, commit, use.
//!
//! Each step is on disk before the next one begins. If the process is killed, the next one continues from the record
//! (`credential::lifecycle`).

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::credential::lifecycle::{NotStarted, Outcome, RenewalCapability, Transition};
use crate::credential::token_state::{RenewalError, TokenHandle};
use crate::refresh::{MAX_STORE_BACKOFF, StoredRecord, TokenRefresher, can_recover, fail_point};
use crate::vault::Lock;

/// Interval between checks for the result of another replica's renewal.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Longest wait for another replica's renewal, 40 s. With the default timeouts a renewal rarely takes longer.
const LOCK_TIMEOUT: Duration = Duration::from_secs(40);

impl TokenRefresher {
    /// Renews a credential with a pair of `generation`, unless another replica does.
    pub(super) async fn renew(&self, handle: &TokenHandle, generation: u64) -> Result<(), RenewalError> {
        let Some(lock) = self.lock(handle, generation).await? else { return Ok(()) };
        fail_point("after-lock");
        let capability = RenewalCapability { recover: can_recover(handle) };
        loop {
            let mut read = self.read(handle).await?;
            if read.entry.generation != generation {
                self.publish(handle, &read.entry, None);
                return Ok(());
            }
            // The process is ending, so no request waits for the renewal. The next process finds the record unchanged.
            let Ok(_critical) = self.critical.try_acquire() else { return Ok(()) };
            let call = read.entry.begin(lock.fence, capability);
            if matches!(call, Err(NotStarted::LockLost)) {
                return Err(RenewalError::Upstream("another replica took over the renewal".to_owned()));
            }
            if !self.swap(handle, &mut read).await? {
                continue;
            }
            let Ok(call) = call else {
                self.publish(handle, &read.entry, None);
                return Ok(());
            };
            fail_point("after-pending");
            let outcome = self.request_pair(handle, call).await;
            let received = self.registry.now();
            fail_point("after-call");
            let why = reason(&outcome);
            let (next, read) = self.commit(handle, &lock, generation, capability, outcome).await?;
            fail_point("after-commit");
            match next {
                Transition::TryOtherWay => {}
                Transition::TryLater => return Err(RenewalError::Upstream(why)),
                Transition::Use => {
                    tracing::info!(credential = %handle.name, generation = read.entry.generation, "a credential was renewed");
                    self.publish(handle, &read.entry, Some(received));
                    fail_point("after-use");
                    return Ok(());
                }
                Transition::UseStored => {
                    self.publish(handle, &read.entry, None);
                    return Ok(());
                }
                Transition::NeedsLogin => return self.mark_failed(handle, read).await,
            }
        }
    }

    /// Acquires the lock. Returns `None` if another replica stores a newer pair meanwhile, and publishes that pair.
    async fn lock(&self, handle: &TokenHandle, generation: u64) -> Result<Option<Lock>, RenewalError> {
        let name = handle.name.to_string();
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            if let Some(lock) = self.vault.lock(&name).await? {
                return Ok(Some(lock));
            }
            if Instant::now() > deadline {
                return Err(RenewalError::Upstream("another replica's renewal does not end".to_owned()));
            }
            sleep(POLL_INTERVAL).await;
            let read = self.read(handle).await?;
            if read.entry.generation != generation {
                self.publish(handle, &read.entry, None);
                return Ok(None);
            }
        }
    }

    /// Stores the outcome of the call. A new pair exists nowhere else, so this tries until it is stored. Requests use the
    /// previous token meanwhile.
    async fn commit(
        &self,
        handle: &TokenHandle,
        lock: &Lock,
        generation: u64,
        capability: RenewalCapability,
        outcome: Outcome,
    ) -> Result<(Transition, StoredRecord), RenewalError> {
        let mut rest = Duration::from_millis(100);
        loop {
            let stored = match self.read(handle).await {
                Ok(mut read) => {
                    let next = read.entry.settle(lock.fence, generation, capability, outcome.clone());
                    if next == Transition::UseStored {
                        return Ok((next, read));
                    }
                    self.swap(handle, &mut read).await.map(|swapped| swapped.then_some((next, read)))
                }
                Err(fault) => Err(fault),
            };
            match stored {
                Ok(Some(stored)) => return Ok(stored),
                Ok(None) => {}
                Err(fault) if matches!(outcome, Outcome::Renewed(_)) => {
                    tracing::error!(credential = %handle.name, %fault, "cannot store a new pair yet; it is used once it is stored");
                    self.publish_error(handle, fault.into());
                    sleep(rest).await;
                    rest = (rest * 2).min(MAX_STORE_BACKOFF);
                }
                Err(fault) => return Err(fault.into()),
            }
        }
    }

    /// Publishes that only a login helps. Removes the record of a managed user without a pair.
    async fn mark_failed(&self, handle: &TokenHandle, read: StoredRecord) -> Result<(), RenewalError> {
        if read.entry.current.is_none() && handle.name.user.is_some() {
            self.vault.forget(&handle.name.to_string()).await?;
            return Err(RenewalError::Absent);
        }
        self.publish_lost(handle, &read.entry);
        Ok(())
    }
}

fn reason(outcome: &Outcome) -> String {
    outcome.clone().into_pair().err().unwrap_or_default()
}
