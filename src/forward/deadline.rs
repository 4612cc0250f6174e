//! A moment by which something has to be over. The timer behind it is made only when there is something to wait for.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A moment by which something has to be over.
#[derive(Debug)]
pub struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// That much from now.
    pub fn after(duration: Duration) -> Self {
        Self { at: Instant::now().checked_add(duration), timer: None }
    }

    /// No such moment.
    pub fn never() -> Self {
        Self { at: None, timer: None }
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
