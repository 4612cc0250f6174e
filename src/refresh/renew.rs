//! One renewal, step by step: lock, `pending` record, call, commit, use.
//!
//! Each step is on disk before the next one begins, so a process that is killed anywhere leaves a record from which the
//! next one knows what to do (`credential::lifecycle`).

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::credential::lifecycle::{Ability, Next, NotBegun, Outcome};
use crate::credential::token_state::{Holder, Trouble};
use crate::refresh::{Keeper, Read, STORE_REST, can_recover, fail_point};
use crate::vault::Lock;

/// How often a renewal that another replica does is looked for.
const PEEK: Duration = Duration::from_millis(50);

/// How long another replica's renewal is waited for: longer than one may take.
const LOCK_PATIENCE: Duration = Duration::from_secs(40);

impl Keeper {
    /// Renews a credential whose pair is of `generation`, unless another replica does.
    pub(super) async fn renew(&self, holder: &Holder, generation: u64) -> Result<(), Trouble> {
        let Some(lock) = self.lock(holder, generation).await? else { return Ok(()) };
        fail_point("after-lock");
        let ability = Ability { recover: can_recover(holder) };
        loop {
            let mut read = self.read(holder).await?;
            if read.entry.generation != generation {
                self.publish(holder, &read.entry, None);
                return Ok(());
            }
            // Nobody waits for it any more where the gateway is at its end; the next one finds the record as it is.
            let Ok(_unfinished) = self.unfinished.try_acquire() else { return Ok(()) };
            let call = read.entry.begin(lock.fence, ability);
            if matches!(call, Err(NotBegun::LockLost)) {
                return Err(Trouble::Upstream("another replica took the renewal over".to_owned()));
            }
            if !self.swap(holder, &mut read).await? {
                continue;
            }
            let Ok(call) = call else {
                self.publish(holder, &read.entry, None);
                return Ok(());
            };
            fail_point("after-pending");
            let outcome = self.ask_upstream(holder, call).await;
            let received = self.holders.now();
            fail_point("after-call");
            let why = reason(&outcome);
            let (next, read) = self.commit(holder, &lock, generation, ability, outcome).await?;
            fail_point("after-commit");
            match next {
                Next::TryOtherWay => {}
                Next::TryLater => return Err(Trouble::Upstream(why)),
                Next::Use => {
                    tracing::info!(credential = %holder.name, generation = read.entry.generation, "a credential was renewed");
                    self.publish(holder, &read.entry, Some(received));
                    fail_point("after-use");
                    return Ok(());
                }
                Next::UseStored => {
                    self.publish(holder, &read.entry, None);
                    return Ok(());
                }
                Next::NeedsLogin => return self.give_up(holder, read).await,
            }
        }
    }

    /// The lock, or nothing if another replica stored a newer pair meanwhile, which is in use then.
    async fn lock(&self, holder: &Holder, generation: u64) -> Result<Option<Lock>, Trouble> {
        let name = holder.name.to_string();
        let patience = Instant::now() + LOCK_PATIENCE;
        loop {
            if let Some(lock) = self.vault.lock(&name).await? {
                return Ok(Some(lock));
            }
            if Instant::now() > patience {
                return Err(Trouble::Upstream("another replica's renewal does not end".to_owned()));
            }
            sleep(PEEK).await;
            let read = self.read(holder).await?;
            if read.entry.generation != generation {
                self.publish(holder, &read.entry, None);
                return Ok(None);
            }
        }
    }

    /// Stores what came of the call. A new pair is nowhere else, so storing it is tried until it succeeds; the token
    /// before it serves meanwhile.
    async fn commit(
        &self,
        holder: &Holder,
        lock: &Lock,
        generation: u64,
        ability: Ability,
        outcome: Outcome,
    ) -> Result<(Next, Read), Trouble> {
        let mut rest = Duration::from_millis(100);
        loop {
            let stored = match self.read(holder).await {
                Ok(mut read) => {
                    let next = read.entry.settle(lock.fence, generation, ability, outcome.clone());
                    if next == Next::UseStored {
                        return Ok((next, read));
                    }
                    self.swap(holder, &mut read).await.map(|swapped| swapped.then_some((next, read)))
                }
                Err(fault) => Err(fault),
            };
            match stored {
                Ok(Some(stored)) => return Ok(stored),
                Ok(None) => {}
                Err(fault) if matches!(outcome, Outcome::Renewed(_)) => {
                    tracing::error!(credential = %holder.name, %fault, "a new pair is not stored yet; it is not used before it is");
                    self.publish_trouble(holder, fault.into());
                    sleep(rest).await;
                    rest = (rest * 2).min(STORE_REST);
                }
                Err(fault) => return Err(fault.into()),
            }
        }
    }

    /// Nothing but a login helps; of a user nobody knows nothing is kept.
    async fn give_up(&self, holder: &Holder, read: Read) -> Result<(), Trouble> {
        if read.entry.current.is_none() && holder.name.user.is_some() {
            self.vault.forget(&holder.name.to_string()).await?;
            return Err(Trouble::Absent);
        }
        self.publish_lost(holder, &read.entry);
        Ok(())
    }
}

fn reason(outcome: &Outcome) -> String {
    outcome.clone().into_pair().err().unwrap_or_default()
}
