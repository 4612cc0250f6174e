//! Deadlines whose timers are set as rarely as possible.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Deadline. Its timer is created by the first poll.
#[derive(Debug)]
pub struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Creates a deadline that much after now.
    pub fn after(duration: Duration) -> Self {
        Self::after_moment(Instant::now(), duration)
    }

    /// Creates a deadline that much after `moment`.
    pub(super) fn after_moment(moment: Instant, duration: Duration) -> Self {
        Self { at: moment.checked_add(duration), timer: None }
    }

    /// Returns the time of the deadline. `None` if it is never reached.
    pub fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Becomes ready once the deadline has passed. Until then, the task is woken at that time.
    pub fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        timer.as_mut().poll(cx)
    }
}

/// Timer for consecutive deadlines, few of which pass. It stays set for an earlier deadline and is reset only when that one
/// passes. That happens rarely, whereas each request would otherwise set the timer twice.
#[derive(Debug, Default)]
pub(super) struct ReusableTimer(Option<Pin<Box<Sleep>>>);

impl ReusableTimer {
    /// Becomes ready once `at` has passed. Until then, the task is woken at that time, and sometimes earlier.
    pub(super) fn poll_passed(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if at < timer.deadline() {
            timer.as_mut().reset(at);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }
}
