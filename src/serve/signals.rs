//! Signals of the program: SIGTERM and SIGINT end it, SIGHUP reloads the configuration.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// All signals that the program handles.
pub(super) struct Signals {
    /// SIGTERM and SIGINT.
    pub(super) shutdown: ShutdownSignal,
    /// SIGHUP.
    pub(super) hangup: Signal,
}

impl Signals {
    /// Starts to listen for all of them.
    ///
    /// # Errors
    /// The system does not allow it.
    pub(super) fn listen() -> Result<Self, String> {
        let listen = |kind| signal(kind).map_err(|e| format!("cannot listen for signals: {e}"));
        let shutdown =
            ShutdownSignal { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? };
        Ok(Self { shutdown, hangup: listen(SignalKind::hangup())? })
    }
}

/// SIGTERM and SIGINT as one source of events.
pub(super) struct ShutdownSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl ShutdownSignal {
    /// Waits for the next of the two signals.
    pub(super) async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
