//! How a caller's body gets on: what `upload` notes, and who waits for the answer asks.

use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use crate::forward::upload::UploadFault;

/// How far a body is, for who waits for the answer to it; nothing where all of it is here.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Option<Arc<Course>>);

/// The same, for the body itself.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// When it has to be over.
    due: OnceLock<Instant>,
    /// When it was.
    sent: OnceLock<Instant>,
    /// What was wrong with it. hyper tells of it only over HTTP/1.1.
    fault: OnceLock<UploadFault>,
}

impl Progress {
    /// That of a body that takes this course.
    pub(super) fn of(course: &Arc<Course>) -> Self {
        Self(Some(course.clone()))
    }

    /// Whether there is nothing left to send.
    pub(super) fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(|course| course.sent.get().is_some())
    }

    /// When the body ended, or has to end at the latest; `None` where there is none, or nobody has asked for it yet.
    pub(super) fn ends_by(&self) -> Option<Instant> {
        self.0.as_ref().and_then(|course| course.sent.get().or(course.due.get()).copied())
    }

    /// What was wrong with it.
    pub(super) fn fault(&self) -> Option<UploadFault> {
        self.0.as_ref().and_then(|course| course.fault.get().copied())
    }
}

impl Course {
    /// Notes when the body has to be over.
    pub(super) fn note_due(&self, at: Option<Instant>) {
        if let Some(at) = at {
            let _ = self.due.set(at);
        }
    }

    /// Notes that it is over.
    pub(super) fn note_sent(&self, now: Instant) {
        let _ = self.sent.set(now);
    }

    /// Notes what is wrong with it.
    pub(super) fn note_fault(&self, fault: UploadFault) {
        let _ = self.fault.set(fault);
    }
}
