//! Stores tokens from a response to a client: the pair of a managed user, or an API key.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::credential::Means;
use crate::credential::stored_token::{Entry, Pair};
use crate::credential::token_state::Holder;
use crate::refresh::{Keeper, STORE_REST};

impl Keeper {
    /// Stores a pair that an answer held. It is in use at once: the one before it is no good any more.
    pub(super) async fn capture(&self, holder: &Holder, pair: Pair, stored: oneshot::Sender<bool>) {
        let _unfinished = self.unfinished.try_acquire();
        let _turn = holder.turn.lock().await;
        holder.take_up();
        let received = self.holders.now();
        let generation = holder.live().generation + 1;
        let mut rest = Duration::from_millis(100);
        let mut stored = Some(stored);
        let replaces = match &**holder.means.load() {
            Means::Key { configured } => Some(configured.clone()),
            Means::OAuth(_) | Means::Managed(_) => None,
        };
        loop {
            let done = match self.read(holder).await {
                Ok(mut read) => {
                    read.entry.replace(pair.clone());
                    if replaces.is_some() {
                        read.entry.replaces.clone_from(&replaces);
                    }
                    let swapped = self.swap(holder, &mut read).await;
                    swapped.map(|swapped| swapped.then(|| self.publish(holder, &read.entry, Some(received))))
                }
                Err(fault) => Err(fault),
            };
            match done {
                Ok(Some(())) => {
                    let _ = stored.take().map(|stored| stored.send(true));
                    return;
                }
                Ok(None) => {}
                Err(fault) => {
                    tracing::error!(credential = %holder.name, %fault, "new tokens are not stored yet");
                    let (current, replaces) = (Some(pair.clone()), replaces.clone());
                    let entry = Entry { generation, current, replaces, ..Entry::default() };
                    self.publish(holder, &entry, Some(received));
                    let _ = stored.take().map(|stored| stored.send(false));
                    sleep(rest).await;
                    rest = (rest * 2).min(STORE_REST);
                }
            }
        }
    }
}
