//! Runs requests to their end even if the client leaves, because their responses hold new tokens.

use std::future::pending;
use std::panic::resume_unwind;
use std::pin::pin;

use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinError;

use crate::gateway::LifecycleState;

/// Has an answer made by a task of its own, which goes on when the future is dropped, as hyper drops it with the connection.
/// The doorway it came in by stays `open` until then, and so the drain waits for it. At the last of the `phases`, it is polled.
#[expect(clippy::disallowed_methods, reason = "the task ends with its request, and the worker waits for it")]
pub(super) fn lasting<T: Send + 'static>(
    answer: impl Future<Output = T> + Send + 'static,
    open: mpsc::Sender<()>,
    mut phases: channel::Receiver<LifecycleState>,
) -> impl Future<Output = T> + Send {
    let task = tokio::spawn(async move {
        let _open = open;
        let mut answer = pin!(answer);
        tokio::select! {
            biased;
            answered = answer.as_mut() => return answered,
            _ = phases.wait_for(|phase| *phase == LifecycleState::Stopped) => {}
        }
        // Polled once more, it gives up.
        answer.await
    });
    async move {
        match task.await.map_err(JoinError::try_into_panic) {
            Ok(answer) => answer,
            Err(Ok(panic)) => resume_unwind(panic),
            // The runtime is on its way out, and this future with it.
            Err(Err(_)) => pending().await,
        }
    }
}
