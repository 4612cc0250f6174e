//! Lifecycle of the process: running, draining, stopped.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// State of the process's lifecycle. A later state is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LifecycleState {
    /// The gateway accepts connections and requests.
    Running,
    /// The gateway accepts no connections, and requests in flight finish.
    Draining,
    /// The gateway answers requests that have no response yet with a refusal, and ends.
    Stopped,
}

/// Holds the current state and notifies its subscribers of each change.
#[derive(Debug)]
pub struct Lifecycle {
    state: watch::Sender<LifecycleState>,
    /// Whether the state is `Stopped`. Every poll of a request reads it, and reading the state itself costs a lock.
    is_stopped: AtomicBool,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { state: watch::Sender::new(LifecycleState::Running), is_stopped: AtomicBool::new(false) }
    }
}

impl Lifecycle {
    /// Enters a state and notifies all subscribers.
    pub fn enter(&self, state: LifecycleState) {
        self.is_stopped.store(state == LifecycleState::Stopped, Ordering::Relaxed);
        self.state.send_replace(state);
    }

    /// Returns the current state.
    pub fn current(&self) -> LifecycleState {
        *self.state.borrow()
    }

    /// Returns whether the gateway gives up requests that have no response yet.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// Subscribes to the changes of the state.
    pub fn subscribe(&self) -> watch::Receiver<LifecycleState> {
        self.state.subscribe()
    }
}
