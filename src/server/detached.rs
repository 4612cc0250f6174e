//! Runs requests to their end even if the client leaves, because their responses contain new tokens.

use std::future::pending;
use std::panic::resume_unwind;
use std::pin::pin;

use tokio::sync::watch;
use tokio::task::JoinError;
use tokio_util::task::TaskTracker;

use crate::gateway::LifecycleState;

/// Runs `work` as one of the `tasks`. It goes on if the returned future is dropped, as hyper drops it with the connection.
/// At the end of the drain, it polls `work` once more, so that `work` can give up.
pub(super) fn run_detached<F>(
    work: F,
    tasks: &TaskTracker,
    mut lifecycle: watch::Receiver<LifecycleState>,
) -> impl Future<Output = F::Output> + Send + use<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    let task = tasks.spawn(async move {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            output = work.as_mut() => return output,
            _ = lifecycle.wait_for(|state| *state == LifecycleState::Stopped) => {}
        }
        work.await
    });
    async move {
        match task.await.map_err(JoinError::try_into_panic) {
            Ok(output) => output,
            Err(Ok(panic)) => resume_unwind(panic),
            // The runtime shuts down, and drops this future, too.
            Err(Err(_)) => pending().await,
        }
    }
}
