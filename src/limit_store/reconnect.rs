//! Maintains the connection to the limit store: connects, probes, and reports local charges before it closes the breaker.

use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::limit_store::circuit_breaker::State;
use crate::limit_store::{NoAnswer, SharedStore};

/// What is owed is told to so many buckets at a time.
const AT_A_TIME: usize = 64;

/// Where that failed, it is tried again so much later.
const TELL_AGAIN: Duration = Duration::from_millis(250);

/// Runs as long as the gateway does. `tried` is told of the first attempt; who comes back `recover_within` after a probe has
/// told the store of everything that it had in flight.
pub(super) async fn keep(store: &SharedStore, recover_within: Duration, tried: &mpsc::Sender<()>) {
    let (mut was_closed, mut told) = (false, None);
    loop {
        let state = *store.state.borrow();
        let is_told = !store.answers() || tell_owed(store).await.is_ok();
        let now = store.clock.now();
        match state {
            State::Closed if is_told => store.changed.notified().await,
            State::Closed => drop(timeout(TELL_AGAIN, store.changed.notified()).await),
            State::Open { probe } => {
                sleep(probe.since(now)).await;
                let is_back = attempt(store, &mut told).await;
                if is_back && was_closed {
                    let seconds = recover_within.as_secs();
                    tracing::info!(store = %store.address, seconds, "the store answers again; it is asked in so many seconds, when it knows what was sent without it");
                }
                let _ = tried.send(());
            }
            State::Recovering { since } => {
                told = None;
                // Who has never been in has nothing to tell.
                let wait = if was_closed { since.after(recover_within).since(now) } else { Duration::ZERO };
                if wait.is_zero() {
                    was_closed = true;
                    store.was_shared.store(true, Ordering::Relaxed);
                    store.change(|breaker, _| breaker.recovered());
                    tracing::info!(store = %store.address, "limits are shared with all gateways on this store");
                } else {
                    drop(timeout(wait, store.changed.notified()).await);
                }
            }
        }
    }
}

/// One probe; true if the store answers. What is wrong is logged, unless it has been `told` already.
async fn attempt(store: &SharedStore, told: &mut Option<String>) -> bool {
    let connected = store.address.connect().await;
    if let Err(fault) = &connected
        && told.as_ref() != Some(fault)
    {
        tracing::warn!(store = %store.address, fault, "the store cannot be reached; it is tried again and again");
        *told = Some(fault.clone());
    }
    *store.lock_link() = connected.ok();
    let succeeded = store.lock_link().is_some() && tell_owed(store).await.is_ok();
    store.change(|breaker, now| breaker.probed(succeeded, now));
    succeeded
}

/// Tells the store what was taken from buckets without asking it.
async fn tell_owed(store: &SharedStore) -> Result<(), NoAnswer> {
    let owed = store.owed.all(store.clock.now());
    for some in owed.chunks(AT_A_TIME) {
        let tell = async |owing| {
            store.call(|mut link| async move { store.scripts.owe(&mut link, owing, None).await }).await?;
            store.owed.told(owing);
            Ok(())
        };
        join_all(some.iter().map(tell)).await.into_iter().collect::<Result<(), NoAnswer>>()?;
    }
    Ok(())
}
