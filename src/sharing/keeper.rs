//! What keeps the connection: connects, probes while the store does not answer, and closes the breaker when everything that
//! was sent meanwhile is known there.

use std::sync::mpsc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::SharedStore;
use super::breaker::State;

/// Runs as long as the gateway does. `tried` is told of the first attempt; who comes back `recover_within` after a probe has
/// told the store of everything that it had in flight.
pub(super) async fn keep(store: &SharedStore, recover_within: Duration, tried: &mpsc::Sender<()>) {
    let mut was_closed = false;
    loop {
        let state = *store.state.borrow();
        let now = store.clock.now();
        match state {
            State::Closed => store.changed.notified().await,
            State::Open { probe } => {
                sleep(probe.since(now)).await;
                attempt(store).await;
                let _ = tried.send(());
            }
            State::Recovering { since } => {
                // Who has never been in has nothing to tell.
                let wait = if was_closed { since.after(recover_within).since(now) } else { Duration::ZERO };
                if wait.is_zero() {
                    was_closed = true;
                    store.change(|breaker, _| breaker.recovered());
                    tracing::info!(store = %store.address, "limits are shared with all gateways on this store");
                } else {
                    drop(timeout(wait, store.changed.notified()).await);
                }
            }
        }
    }
}

async fn attempt(store: &SharedStore) {
    let connected = store.address.connect().await;
    if let Err(fault) = &connected {
        tracing::debug!(store = %store.address, fault = fault.category(), "the store cannot be reached");
    }
    let connected = connected.ok();
    let succeeded = connected.is_some();
    *store.lock_link() = connected;
    store.change(|breaker, now| breaker.probed(succeeded, now));
}
