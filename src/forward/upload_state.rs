//! Upload state, shared between the request body and the task that waits for the response.

use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use crate::forward::upload::UploadFault;

/// View of the upload state for the task that waits for the response. Empty if the whole body is in memory.
#[derive(Debug, Clone, Default)]
pub(super) struct UploadProgress(Option<Arc<UploadState>>);

/// Upload state, which the request body updates.
#[derive(Debug, Default)]
pub(super) struct UploadState {
    /// Deadline of the body.
    due: OnceLock<Instant>,
    /// Time at which the body ended.
    sent: OnceLock<Instant>,
    /// Fault of the body. hyper reports it only over HTTP/1.1.
    fault: OnceLock<UploadFault>,
}

impl UploadProgress {
    /// Creates a view of an upload state.
    pub(super) fn of(state: &Arc<UploadState>) -> Self {
        Self(Some(state.clone()))
    }

    /// Returns whether the whole body is sent.
    pub(super) fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(|state| state.sent.get().is_some())
    }

    /// Returns the time at which the body ended, or its deadline. `None` if there is no body, or if hyper has not polled it
    /// yet.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.as_ref().and_then(|state| state.sent.get().or(state.due.get()).copied())
    }

    /// Returns the fault of the body.
    pub(super) fn fault(&self) -> Option<UploadFault> {
        self.0.as_ref().and_then(|state| state.fault.get().copied())
    }
}

impl UploadState {
    /// Sets the deadline of the body.
    pub(super) fn set_deadline(&self, at: Option<Instant>) {
        if let Some(at) = at {
            let _ = self.due.set(at);
        }
    }

    /// Records that the body ended.
    pub(super) fn mark_sent(&self, now: Instant) {
        let _ = self.sent.set(now);
    }

    /// Records a fault of the body.
    pub(super) fn mark_failed(&self, fault: UploadFault) {
        let _ = self.fault.set(fault);
    }
}
