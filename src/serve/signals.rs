//! Signals that end the program.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT as one stream.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Starts to receive them.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn listen() -> Result<Self, String> {
        Ok(Self { terminate: received(SignalKind::terminate())?, interrupt: received(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    pub(super) async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

pub(super) fn received(kind: SignalKind) -> Result<Signal, String> {
    signal(kind).map_err(|e| format!("signals cannot be received: {e}"))
}
