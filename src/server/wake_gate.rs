//! A future that is polled only after it was woken.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// A future that has nothing to tell for as long as a connection lasts, mostly, while its task is polled with each request.
pub(super) struct Aside<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
}

/// What such a future wakes: it notes that it was rung, and wakes the task.
struct Bell {
    task: Waker,
    rung: AtomicBool,
}

impl Bell {
    /// A new one is rung, so that the future is polled a first time.
    fn of(task: &Waker) -> Arc<Self> {
        Arc::new(Self { task: task.clone(), rung: AtomicBool::new(true) })
    }

    /// Whether it was rung since it was last asked. Mostly it was not, which a look tells.
    fn was_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::Acquire)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl<F: Future> Aside<F> {
    pub(super) fn new(future: F) -> Self {
        Self { future: Box::pin(future), bell: Bell::of(Waker::noop()) }
    }
}

impl<F: Future> Future for Aside<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        if !this.bell.task.will_wake(cx.waker()) {
            this.bell = Bell::of(cx.waker());
        }
        if !this.bell.was_rung() {
            return Poll::Pending;
        }
        let bell = Waker::from(this.bell.clone());
        this.future.as_mut().poll(&mut Context::from_waker(&bell))
    }
}
