//! Supervisor of the connection to the limit store: connects, reports local charges, and closes the circuit breaker.

use std::sync::mpsc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::limit_store::circuit_breaker::BreakerState;
use crate::limit_store::{LimitStoreClient, Unavailable};

/// Number of reports that are sent at the same time.
const FLUSH_BATCH: usize = 64;

/// Pause after a failed flush of the backlog.
const FLUSH_BACKOFF: Duration = Duration::from_millis(250);

/// Maximum number of searches for the cause of one failure. A search fails if a node does not reply in time.
const MAX_DIAGNOSES: u32 = 3;

/// Failure to connect that was logged last.
#[derive(Default)]
struct LoggedFailure {
    reason: String,
    has_cause: bool,
    diagnoses: u32,
}

/// Supervises the connection for as long as the gateway runs. Sends on `tried` after each attempt to connect. After a
/// successful probe, it waits `recover_within` so that every gateway can replay its requests.
pub(super) async fn supervise(client: &LimitStoreClient, recover_within: Duration, tried: &mpsc::Sender<()>) {
    let (mut was_closed, mut failure) = (false, LoggedFailure::default());
    loop {
        let state = client.state();
        let is_flushed = !client.is_available() || flush_backlog(client).await.is_ok();
        let now = client.clock.now();
        match state {
            BreakerState::Closed if is_flushed => client.changed.notified().await,
            BreakerState::Closed => drop(timeout(FLUSH_BACKOFF, client.changed.notified()).await),
            BreakerState::Open { probe: due } => {
                sleep(due.since(now)).await;
                let is_back = probe(client, &mut failure).await;
                if is_back && was_closed {
                    let (store, seconds) = (client.store.servers(), recover_within.as_secs());
                    tracing::info!(store, seconds, "limit store is back; resuming shared limits after replay");
                }
                let _ = tried.send(());
            }
            BreakerState::Recovering { since } => {
                failure = LoggedFailure::default();
                // At the first connection there are no requests to replay.
                let wait = if was_closed { since.after(recover_within).since(now) } else { Duration::ZERO };
                if wait.is_zero() {
                    was_closed = true;
                    client.resume();
                    tracing::info!(store = client.store.servers(), "limits are shared with all gateways on this store");
                } else {
                    drop(timeout(wait, client.changed.notified()).await);
                }
            }
        }
    }
}

/// Connects, and reports the backlog. Returns whether both succeeded.
async fn probe(client: &LimitStoreClient, failure: &mut LoggedFailure) -> bool {
    let connected = client.store.connect().await;
    if let Err(reason) = &connected {
        client.store.disconnect();
        log_failure(client, reason, failure).await;
    }
    let succeeded = connected.is_ok() && flush_backlog(client).await.is_ok();
    client.update_breaker(|breaker, now| breaker.record_probe(succeeded, now));
    succeeded
}

/// Logs a failure to connect, unless it is the `last` one that was logged. Only a new failure is diagnosed, because that
/// delays the next attempt.
async fn log_failure(client: &LimitStoreClient, reason: &str, last: &mut LoggedFailure) {
    let is_new = last.reason != reason;
    if is_new {
        *last = LoggedFailure { reason: reason.to_owned(), ..LoggedFailure::default() };
    }
    if last.has_cause || last.diagnoses == MAX_DIAGNOSES {
        return;
    }
    last.diagnoses += 1;
    let cause = client.store.diagnose().await;
    last.has_cause = cause.is_some();
    if is_new || last.has_cause {
        let (store, fault) = (client.store.servers(), cause.as_deref().unwrap_or(reason));
        tracing::warn!(store, fault, "cannot reach the limit store; trying again");
    }
}

/// Reports what was charged without the store.
async fn flush_backlog(client: &LimitStoreClient) -> Result<(), Unavailable> {
    let reports = client.backlog.reports(client.clock.now());
    for batch in reports.chunks(FLUSH_BATCH) {
        let send = async |report| {
            client.report(report).await?;
            client.backlog.acknowledge(report);
            Ok(())
        };
        join_all(batch.iter().map(send)).await.into_iter().collect::<Result<(), Unavailable>>()?;
    }
    Ok(())
}
