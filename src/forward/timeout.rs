//! Moments by which something has to be over. The timers behind them are set as rarely as can be.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A moment by which something has to be over. Its timer is made only when there is something to wait for.
#[derive(Debug)]
pub struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// That much from now.
    pub fn after(duration: Duration) -> Self {
        Self::after_moment(Instant::now(), duration)
    }

    /// That much after `moment`.
    pub(super) fn after_moment(moment: Instant, duration: Duration) -> Self {
        Self { at: moment.checked_add(duration), timer: None }
    }

    /// The moment.
    pub fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Ready once the moment has passed; until then the task is woken when it does.
    pub fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        timer.as_mut().poll(cx)
    }
}

/// A timer for one deadline after another, hardly any of which passes. It stays set for an earlier one, and is put off when
/// that has come: once in a while, instead of twice a request.
#[derive(Debug, Default)]
pub(super) struct ReusableTimer(Option<Pin<Box<Sleep>>>);

impl ReusableTimer {
    /// Ready once `at` has passed; until then the task is woken when it does, and now and then for nothing.
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
