//! Graceful shutdown: how long the process waits for requests in flight.

use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::signals::Stop;
use crate::gateway::{Gateway, LifecycleState};

/// How often a renewal's end is looked for while the process ends.
const KEEPER_PEEK: Duration = Duration::from_millis(10);

/// Time that workers have to answer the requests that are given up, 1 s: longer than they wait for their connections.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Waits for the workers to end, and then for renewals, as what they bring has to be stored: at most for `limits.drain`, and
/// no longer than until a second signal. Then what is left is given up, and written down as that.
#[expect(clippy::disallowed_methods, reason = "this thread only waits for the end of the process")]
pub(super) async fn wait(gateway: &Gateway, workers: Vec<thread::JoinHandle<()>>, stop: &mut Stop) {
    let (served, mut workers_ended) = oneshot::channel();
    let (done, ended) = oneshot::channel();
    let keeper = gateway.keeper.clone();
    thread::spawn(move || {
        for worker in workers {
            drop(worker.join());
        }
        let _ = served.send(());
        if let Some(keeper) = keeper {
            keeper.end();
            while keeper.is_busy() {
                thread::sleep(KEEPER_PEEK);
            }
        }
        let _ = done.send(());
    });
    let in_flight = || gateway.capacity.in_flight();
    tokio::select! {
        biased;
        _ = ended => return,
        () = sleep(gateway.snapshot().bounds.drain) => {
            tracing::warn!(in_flight = in_flight(), "limits.drain is over; requests still in flight are given up");
        }
        () = stop.told() => {
            tracing::warn!(in_flight = in_flight(), "told to stop again; requests still in flight are given up");
        }
    }
    gateway.lifecycle.enter(LifecycleState::Stopped);
    let _ = timeout(LAST_LINES, &mut workers_ended).await;
}
