//! Activity of a connection, and the time limits that hyper does not enforce.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::config::limits::Bounds;
use crate::time::nanoseconds;

/// Time that an HTTP/2 client has to receive the last response bytes before the connection is closed, 5 s. A client that
/// acknowledges them ends the wait.
pub(super) const FINAL_FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Activity of one connection. Its transport, its service and its driver share it on one thread.
#[derive(Debug)]
pub(super) struct ConnectionActivity {
    opened: Instant,
    is_http2: bool,
    /// Whether no byte has arrived yet.
    is_new: AtomicBool,
    /// Whether the bytes read so far end within a head (HTTP/1.1).
    in_head: AtomicBool,
    /// Number of [`ExchangeGuard`]s.
    guards: AtomicU32,
    /// Whether a response is being sent (HTTP/1.1).
    is_sending: AtomicBool,
    /// Whether the last request has a response head, which can no longer announce the end of the connection (HTTP/1.1).
    has_sent_head: AtomicBool,
    /// Start of the last response, in nanoseconds since `opened` (HTTP/1.1).
    response_started: AtomicU64,
    /// Whether the socket accepts no more bytes at the moment.
    write_blocked: AtomicBool,
    /// Start of the current head or of the idle time, in nanoseconds since `opened`.
    since: AtomicU64,
    /// Whether the last request has a body.
    had_body: AtomicBool,
    /// Whether nobody reads the rest of the last request's body. The next bytes are then not a head.
    unread_body: AtomicBool,
    /// Whether a read waits until all responses are written.
    has_reader: AtomicBool,
    /// Wakes that read.
    reader: AtomicWaker,
    /// Number of requests so far.
    requests: AtomicU64,
    /// Number of the request and start of each response that is being sent, oldest first (HTTP/2).
    responses: Mutex<VecDeque<(u64, Instant)>>,
}

/// Action that the time limits require of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeoutAction {
    /// Check again at this time.
    WaitUntil(Instant),
    /// Close the connection after the requests in flight.
    Close,
    /// Reject a head that took too long.
    LateHead,
    /// Close the connection at once, because the client does not read its response.
    Abort,
}

impl ConnectionActivity {
    pub(super) fn new(now: Instant, is_http2: bool) -> Self {
        Self {
            opened: now,
            is_http2,
            is_new: AtomicBool::new(true),
            in_head: AtomicBool::new(false),
            guards: AtomicU32::new(0),
            is_sending: AtomicBool::new(false),
            has_sent_head: AtomicBool::new(false),
            response_started: AtomicU64::new(0),
            write_blocked: AtomicBool::new(false),
            since: AtomicU64::new(0),
            had_body: AtomicBool::new(false),
            unread_body: AtomicBool::new(false),
            has_reader: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            requests: AtomicU64::new(0),
            responses: Mutex::default(),
        }
    }

    /// Records that bytes arrived over HTTP/1.1, and whether they end within a head.
    pub(super) fn mark_read(&self, in_head: bool) {
        if in_head && self.is_idle() {
            // The time of the first head starts with the connection.
            if !self.is_new.load(Relaxed) {
                self.store_now(&self.since);
            }
            self.had_body.store(false, Relaxed);
        }
        self.is_new.store(false, Relaxed);
        self.in_head.store(in_head, Relaxed);
    }

    /// Completes when every request has its response and all responses are written.
    pub(super) fn poll_responses_written(&self, cx: &Context<'_>) -> Poll<()> {
        let is_busy = self.has_exchange() || self.is_write_blocked();
        self.has_reader.store(is_busy, Relaxed);
        if is_busy {
            self.reader.register(cx.waker());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Returns whether a request is in flight.
    pub(super) fn has_exchange(&self) -> bool {
        self.guards.load(Relaxed) > 0
    }

    fn wake_reader(&self) {
        if self.has_reader.load(Relaxed) {
            self.reader.wake();
        }
    }

    /// Returns whether the connection uses HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.is_http2
    }

    /// Returns whether a head has begun and not ended.
    pub(super) fn is_in_head(&self) -> bool {
        self.in_head.load(Relaxed)
    }

    /// Returns whether the connection waits only for the rest of a head. Earlier responses are written first.
    pub(super) fn is_awaiting_head(&self) -> bool {
        self.is_in_head() && !self.has_exchange() && !self.is_write_blocked()
    }

    /// Returns whether no request is in flight or arriving. The end of the last response may not be written yet.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_in_head() && self.guards.load(Relaxed) == 0
    }

    /// Records whether the socket accepted the last write.
    pub(super) fn mark_written(&self, accepted: bool) {
        if self.is_write_blocked() == accepted {
            self.write_blocked.store(!accepted, Relaxed);
            if accepted {
                self.store_now(&self.since);
                self.wake_reader();
            }
        }
    }

    fn is_write_blocked(&self) -> bool {
        self.write_blocked.load(Relaxed)
    }

    /// Returns whether a connection that shuts down can be dropped without loss.
    ///
    /// After an HTTP/2 connection is dropped, further input such as a window update makes the kernel reset it. The reset
    /// discards the response bytes that the kernel has not sent yet.
    pub(super) fn is_closable(&self, now: Instant) -> bool {
        let may_be_reading =
            self.is_http2 && !self.is_new.load(Relaxed) && now < self.at(&self.since) + FINAL_FLUSH_TIMEOUT;
        self.is_idle() && !self.is_write_blocked() && !may_be_reading
    }

    /// Returns whether the last request has a body, even if it was read to its end.
    pub(super) fn had_body(&self) -> bool {
        self.had_body.load(Relaxed)
    }

    /// Returns whether the next bytes are the rest of a body that nobody reads.
    pub(super) fn has_unread_body(&self) -> bool {
        self.unread_body.load(Relaxed)
    }

    /// Begins a request, which is in flight until the last copy of its guard is dropped.
    pub(super) fn start_exchange(self: &Arc<Self>, has_body: bool) -> ExchangeGuard {
        self.is_new.store(false, Relaxed);
        self.had_body.store(has_body, Relaxed);
        self.has_sent_head.store(false, Relaxed);
        self.guards.fetch_add(1, Relaxed);
        ExchangeGuard { activity: self.clone(), request: self.requests.fetch_add(1, Relaxed) }
    }

    /// Returns the action that the time limits require at `now`.
    pub(super) fn timeout_action(&self, now: Instant, limits: &Bounds) -> TimeoutAction {
        let aged = self.opened + limits.connection_age;
        let since = self.at(&self.since);
        // A client that stops reading also stops the checks of the response's own time limit.
        let write_deadline = self.oldest_response().map(|began| began + limits.upstream_total);
        let (end, action_at_end) = if self.is_awaiting_head() {
            (since + limits.head, TimeoutAction::LateHead)
        } else if self.is_idle() && !self.is_write_blocked() {
            let limit = if self.is_new.load(Relaxed) { limits.first_byte } else { limits.idle };
            (since + limit, TimeoutAction::Close)
        } else {
            // Requests have their own time limits, so the next check is due when the connection may be idle again.
            (now + Duration::from_secs(1).max(limits.head.min(limits.idle)), TimeoutAction::Close)
        };
        if write_deadline.is_some_and(|deadline| now >= deadline) {
            TimeoutAction::Abort
        } else if now >= end {
            action_at_end
        } else if now >= aged {
            TimeoutAction::Close
        } else {
            // A response that begins before the next check needs a check in time.
            let write_deadline = write_deadline.unwrap_or(now + limits.upstream_total.max(Duration::from_secs(1)));
            TimeoutAction::WaitUntil(end.min(aged).min(write_deadline))
        }
    }

    /// Returns the start of the oldest response that is not written yet. Without a request in flight, blocked bytes are the end
    /// of a response.
    fn oldest_response(&self) -> Option<Instant> {
        let is_end = self.is_write_blocked() && self.guards.load(Relaxed) == 0;
        if self.is_http2 {
            let oldest = self.with_responses(|responses| responses.front().map(|(_, began)| *began));
            oldest.or_else(|| is_end.then(|| self.at(&self.since)))
        } else {
            (is_end || self.is_sending.load(Relaxed)).then(|| self.at(&self.response_started))
        }
    }

    fn store_now(&self, moment: &AtomicU64) {
        moment.store(nanoseconds(self.opened.elapsed()), Relaxed);
    }

    fn at(&self, moment: &AtomicU64) -> Instant {
        self.opened + Duration::from_nanos(moment.load(Relaxed))
    }

    fn with_responses<T>(&self, f: impl FnOnce(&mut VecDeque<(u64, Instant)>) -> T) -> T {
        f(&mut self.responses.lock())
    }
}

/// Guard of a request in flight. The request body holds a copy, because it may still arrive while the response is sent.
#[derive(Debug)]
pub(super) struct ExchangeGuard {
    activity: Arc<ConnectionActivity>,
    request: u64,
}

impl ExchangeGuard {
    /// Returns the activity of the request's connection.
    pub(super) fn activity(&self) -> &ConnectionActivity {
        &self.activity
    }

    /// Records that the response begins.
    #[expect(clippy::disallowed_methods, reason = "the time limit of a response starts here")]
    pub(super) fn mark_response_start(&self) {
        if self.activity.is_http2 {
            self.activity.with_responses(|responses| responses.push_back((self.request, Instant::now())));
        } else {
            self.activity.store_now(&self.activity.response_started);
            self.activity.has_sent_head.store(true, Relaxed);
            self.activity.is_sending.store(true, Relaxed);
        }
    }

    /// Records that the response was sent or dropped.
    pub(super) fn mark_response_end(&self) {
        if self.activity.is_http2 {
            self.activity.with_responses(|responses| responses.retain(|(request, _)| *request != self.request));
        } else {
            self.activity.is_sending.store(false, Relaxed);
        }
    }

    /// Returns whether the next request has arrived, so this one was read to its end (HTTP/1.1).
    pub(super) fn has_next_request(&self) -> bool {
        !self.activity.is_http2 && self.activity.requests.load(Relaxed) > self.request + 1
    }

    /// Returns whether the head of the response has announced that the connection stays open (HTTP/1.1).
    pub(super) fn has_answered(&self) -> bool {
        self.activity.has_sent_head.load(Relaxed)
    }

    /// Records that nobody reads the rest of the request's body. Over HTTP/2 this concerns only its stream.
    pub(super) fn mark_body_unread(&self) {
        self.activity.unread_body.store(!self.activity.is_http2, Relaxed);
    }
}

impl Clone for ExchangeGuard {
    fn clone(&self) -> Self {
        self.activity.guards.fetch_add(1, Relaxed);
        Self { activity: self.activity.clone(), request: self.request }
    }
}

impl Drop for ExchangeGuard {
    fn drop(&mut self) {
        if self.activity.guards.load(Relaxed) == 1 {
            self.activity.store_now(&self.activity.since);
        }
        if self.activity.guards.fetch_sub(1, Relaxed) == 1 {
            self.activity.wake_reader();
        }
    }
}
