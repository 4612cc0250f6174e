//! Future that is polled only after its own waker fired, even if its task is polled more often.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// A future that shares its task with a busier one. The time limits of a connection rarely change, but its task is polled
/// with each request.
pub(super) struct WakeGated<F> {
    future: Pin<Box<F>>,
    waker: Arc<FlagWaker>,
}

/// Waker that sets a flag before it wakes the task.
struct FlagWaker {
    task: Waker,
    woken: AtomicBool,
}

impl FlagWaker {
    /// Creates a waker whose flag is set, so that the future is polled a first time.
    fn new(task: &Waker) -> Arc<Self> {
        Arc::new(Self { task: task.clone(), woken: AtomicBool::new(true) })
    }

    /// Returns whether the waker fired since the last call. The relaxed load skips the swap in the common case.
    fn take_woken(&self) -> bool {
        self.woken.load(Ordering::Relaxed) && self.woken.swap(false, Ordering::Acquire)
    }
}

impl Wake for FlagWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl<F: Future> WakeGated<F> {
    pub(super) fn new(future: F) -> Self {
        Self { future: Box::pin(future), waker: FlagWaker::new(Waker::noop()) }
    }
}

impl<F: Future> Future for WakeGated<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        if !this.waker.task.will_wake(cx.waker()) {
            this.waker = FlagWaker::new(cx.waker());
        }
        if !this.waker.take_woken() {
            return Poll::Pending;
        }
        let waker = Waker::from(this.waker.clone());
        this.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}
