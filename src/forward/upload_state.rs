//! How a caller's body gets on: what `upload` notes, and who waits for the answer asks.

use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use crate::forward::upload::UploadFault;

/// How far a body is, for who waits for the answer to it; nothing where all of it is here.
#[derive(Debug, Clone, Default)]
pub(super) struct UploadProgress(Option<Arc<UploadState>>);

/// The same, for the body itself.
#[derive(Debug, Default)]
pub(super) struct UploadState {
    /// When it has to be over.
    due: OnceLock<Instant>,
    /// When it was.
    sent: OnceLock<Instant>,
    /// What was wrong with it. hyper tells of it only over HTTP/1.1.
    fault: OnceLock<UploadFault>,
}

impl UploadProgress {
    /// That of a body that takes this course.
    pub(super) fn of(state: &Arc<UploadState>) -> Self {
        Self(Some(state.clone()))
    }

    /// Whether there is nothing left to send.
    pub(super) fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(|state| state.sent.get().is_some())
    }

    /// When the body ended, or has to end at the latest; `None` where there is none, or nobody has asked for it yet.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.as_ref().and_then(|state| state.sent.get().or(state.due.get()).copied())
    }

    /// What was wrong with it.
    pub(super) fn fault(&self) -> Option<UploadFault> {
        self.0.as_ref().and_then(|state| state.fault.get().copied())
    }
}

impl UploadState {
    /// Notes when the body has to be over.
    pub(super) fn set_deadline(&self, at: Option<Instant>) {
        if let Some(at) = at {
            let _ = self.due.set(at);
        }
    }

    /// Notes that it is over.
    pub(super) fn mark_sent(&self, now: Instant) {
        let _ = self.sent.set(now);
    }

    /// Notes what is wrong with it.
    pub(super) fn mark_failed(&self, fault: UploadFault) {
        let _ = self.fault.set(fault);
    }
}
