//! Graceful shutdown: waits for the requests in flight and for token renewals, up to `limits.drain`.

use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::signals::ShutdownSignal;
use crate::gateway::{Gateway, LifecycleState};

/// Interval of the checks whether token renewals have ended, 10 ms.
const REFRESH_POLL: Duration = Duration::from_millis(10);

/// Time that workers have to exit after the drain, 1 s. They need up to 500 ms of it to write the last responses.
const WORKER_EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Waits until the workers have exited and then until all renewals have ended, because their new tokens must be stored.
///
/// `limits.drain` and a second signal end the wait. Requests that are still in flight are then answered with a refusal.
#[expect(clippy::disallowed_methods, reason = "this thread only polls until the process exits")]
pub(super) async fn drain(gateway: &Gateway, workers: Vec<thread::JoinHandle<()>>, shutdown: &mut ShutdownSignal) {
    let (served, mut workers_ended) = oneshot::channel();
    let (done, ended) = oneshot::channel();
    let refresher = gateway.refresher.clone();
    thread::spawn(move || {
        for worker in workers {
            drop(worker.join());
        }
        let _ = served.send(());
        if let Some(refresher) = refresher {
            refresher.end();
            while refresher.is_busy() {
                thread::sleep(REFRESH_POLL);
            }
        }
        let _ = done.send(());
    });
    let in_flight = || gateway.capacity.in_flight();
    tokio::select! {
        biased;
        _ = ended => return,
        () = sleep(gateway.snapshot().bounds.drain) => {
            tracing::warn!(in_flight = in_flight(), "limits.drain is over; giving up the requests in flight");
        }
        () = shutdown.recv() => {
            tracing::warn!(in_flight = in_flight(), "received a second signal; giving up the requests in flight");
        }
    }
    gateway.lifecycle.enter(LifecycleState::Stopped);
    let _ = timeout(WORKER_EXIT_TIMEOUT, &mut workers_ended).await;
}
