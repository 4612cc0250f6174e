//! Stores tokens from a response to a client: the pair of a managed user, or an API key.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::credential::RenewalMethod;
use crate::credential::stored_token::{StoredCredential, TokenPair};
use crate::credential::token_state::TokenHandle;
use crate::refresh::{MAX_STORE_BACKOFF, TokenRefresher};

impl TokenRefresher {
    /// Stores a pair from a response. Requests use it at once, because Cal.com has invalidated the previous one.
    pub(super) async fn capture(&self, handle: &TokenHandle, pair: TokenPair, stored: oneshot::Sender<bool>) {
        let _critical = self.critical.try_acquire();
        let _turn = handle.renewal_lock.lock().await;
        handle.claim();
        let received = self.registry.now();
        let generation = handle.current().generation + 1;
        let mut rest = Duration::from_millis(100);
        let mut stored = Some(stored);
        let replaces = match &**handle.renewal_method.load() {
            RenewalMethod::Key { configured } => Some(configured.clone()),
            RenewalMethod::OAuth(_) | RenewalMethod::Managed(_) => None,
        };
        loop {
            let done = match self.read(handle).await {
                Ok(mut read) => {
                    read.entry.replace(pair.clone());
                    if replaces.is_some() {
                        read.entry.replaces.clone_from(&replaces);
                    }
                    let swapped = self.swap(handle, &mut read).await;
                    swapped.map(|swapped| swapped.then(|| self.publish(handle, &read.entry, Some(received))))
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
                    tracing::error!(credential = %handle.name, %fault, "cannot store new tokens yet");
                    let (current, replaces) = (Some(pair.clone()), replaces.clone());
                    let entry = StoredCredential { generation, current, replaces, ..StoredCredential::default() };
                    self.publish(handle, &entry, Some(received));
                    let _ = stored.take().map(|stored| stored.send(false));
                    sleep(rest).await;
                    rest = (rest * 2).min(MAX_STORE_BACKOFF);
                }
            }
        }
    }
}
