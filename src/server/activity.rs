//! Activity of a connection, and the time limits that hyper does not have.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::config::limits::Bounds;
use crate::time::nanoseconds;

/// How long a caller has over HTTP/2 for what the kernel holds of its last answers, unless it tells sooner that it took them.
pub(super) const LAST_BYTES: Duration = Duration::from_secs(5);

/// Shared by a connection's transport, its service and its driver, all of which are on one thread.
#[derive(Debug)]
pub(super) struct Watch {
    opened: Instant,
    http2: bool,
    /// Whether nothing came yet.
    fresh: AtomicBool,
    /// Whether the bytes read so far end within a head (HTTP/1.1).
    in_head: AtomicBool,
    /// Holds on requests that are being answered.
    holds: AtomicU32,
    /// Whether an answer is going out (HTTP/1.1).
    sending: AtomicBool,
    /// Whether the head of the last request's answer is made, and can no longer say that the connection ends (HTTP/1.1).
    answered: AtomicBool,
    /// When the last answer began to go out: nanoseconds since the connection was opened (HTTP/1.1).
    answer_began: AtomicU64,
    /// Whether there is more to write than the caller's side takes now.
    backed_up: AtomicBool,
    /// Since when it is in a head, or does nothing: nanoseconds since it was opened.
    since: AtomicU64,
    /// Whether the last request came with a body, which may not have been read to its end.
    had_body: AtomicBool,
    /// Whether the last request's body was let go of before its end: what comes next is the rest of it, and no head.
    left_unread: AtomicBool,
    /// Whether a read waits until the connection is idle.
    is_awaited: AtomicBool,
    /// Wakes that read.
    awaiter: AtomicWaker,
    /// Requests so far.
    requests: AtomicU64,
    /// When each answer that is going out began, the oldest first, by the number of its request (HTTP/2).
    answers: Mutex<VecDeque<(u64, Instant)>>,
}

/// What a connection has to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing until then.
    GoOn(Instant),
    /// End, after the requests that are being answered.
    End,
    /// End: a head took too long.
    LateHead,
    /// End at once: a caller does not take its answer.
    Stuck,
}

impl Watch {
    pub(super) fn new(now: Instant, http2: bool) -> Self {
        Self {
            opened: now,
            http2,
            fresh: AtomicBool::new(true),
            in_head: AtomicBool::new(false),
            holds: AtomicU32::new(0),
            sending: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            answer_began: AtomicU64::new(0),
            backed_up: AtomicBool::new(false),
            since: AtomicU64::new(0),
            had_body: AtomicBool::new(false),
            left_unread: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
            awaiter: AtomicWaker::new(),
            requests: AtomicU64::new(0),
            answers: Mutex::default(),
        }
    }

    /// Records that bytes came over HTTP/1.1, and whether they end within a head.
    pub(super) fn note_read(&self, in_head: bool) {
        if in_head && self.is_idle() {
            // The first head began when the connection was opened.
            if !self.fresh.load(Relaxed) {
                self.note_now(&self.since);
            }
            self.had_body.store(false, Relaxed);
        }
        self.fresh.store(false, Relaxed);
        self.in_head.store(in_head, Relaxed);
    }

    /// Returns whether a request is being answered, or the end of a response is still to be written. If so, wakes `waker`
    /// once neither is.
    pub(super) fn is_busy_or_wakes(&self, waker: &Waker) -> bool {
        let is_busy = self.is_answering() || self.is_backed_up();
        self.is_awaited.store(is_busy, Relaxed);
        if is_busy {
            self.awaiter.register(waker);
        }
        is_busy
    }

    /// Returns whether a request is being answered.
    pub(super) fn is_answering(&self) -> bool {
        self.holds.load(Relaxed) > 0
    }

    fn wake_awaiter(&self) {
        if self.is_awaited.load(Relaxed) {
            self.awaiter.wake();
        }
    }

    /// Whether the connection is HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.http2
    }

    /// Whether a head has begun and not ended.
    pub(super) fn is_in_head(&self) -> bool {
        self.in_head.load(Relaxed)
    }

    /// Whether the rest of a head is all that it waits for. What was answered before goes first.
    pub(super) fn awaits_head(&self) -> bool {
        self.is_in_head() && !self.is_answering() && !self.is_backed_up()
    }

    /// Whether no request is going on. What hyper has of the last answer may still have to be written.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_in_head() && self.holds.load(Relaxed) == 0
    }

    /// Notes whether the caller's side took what there was to write.
    pub(super) fn note_written(&self, taken: bool) {
        if self.is_backed_up() == taken {
            self.backed_up.store(!taken, Relaxed);
            if taken {
                self.note_now(&self.since);
                self.wake_awaiter();
            }
        }
    }

    fn is_backed_up(&self) -> bool {
        self.backed_up.load(Relaxed)
    }

    /// Whether a connection that was told to end can be dropped without loss. To drop one over HTTP/2 resets it when more
    /// comes, window updates for one, and that loses what the kernel holds; a caller that has read it all says so, and hyper
    /// ends the connection.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let may_be_reading = self.http2 && !self.fresh.load(Relaxed) && now < self.at(&self.since) + LAST_BYTES;
        self.is_idle() && !self.is_backed_up() && !may_be_reading
    }

    /// Whether the last request came with a body.
    pub(super) fn had_body(&self) -> bool {
        self.had_body.load(Relaxed)
    }

    /// Whether the rest of a body comes that nobody reads.
    pub(super) fn has_left_unread(&self) -> bool {
        self.left_unread.load(Relaxed)
    }

    /// Notes that a request is being answered, until the last hold on it is dropped.
    pub(super) fn answering(self: &Arc<Self>, has_body: bool) -> Answering {
        self.fresh.store(false, Relaxed);
        self.had_body.store(has_body, Relaxed);
        self.answered.store(false, Relaxed);
        self.holds.fetch_add(1, Relaxed);
        Answering { watch: self.clone(), request: self.requests.fetch_add(1, Relaxed) }
    }

    /// What is to be done at `now`.
    pub(super) fn verdict(&self, now: Instant, limits: &Bounds) -> Verdict {
        let aged = self.opened + limits.connection_age;
        let since = self.at(&self.since);
        // The answer's own deadline is looked at only when the caller takes more of it.
        let stuck = self.oldest_answer().map(|began| began + limits.upstream_total);
        let (end, verdict) = if self.awaits_head() {
            (since + limits.head, Verdict::LateHead)
        } else if self.is_idle() && !self.is_backed_up() {
            let patience = if self.fresh.load(Relaxed) { limits.first_byte } else { limits.idle };
            (since + patience, Verdict::End)
        } else {
            // The requests have deadlines of their own; look again when one could be over.
            (now + Duration::from_secs(1).max(limits.head.min(limits.idle)), Verdict::End)
        };
        if stuck.is_some_and(|stuck| now >= stuck) {
            Verdict::Stuck
        } else if now >= end {
            verdict
        } else if now >= aged {
            Verdict::End
        } else {
            // An answer that begins meanwhile must not be noticed too late.
            let stuck = stuck.unwrap_or(now + limits.upstream_total.max(Duration::from_secs(1)));
            Verdict::GoOn(end.min(aged).min(stuck))
        }
    }

    /// When the oldest answer that has not gone out yet began to. What is left to write without a request is one's end.
    fn oldest_answer(&self) -> Option<Instant> {
        let is_end = self.is_backed_up() && self.holds.load(Relaxed) == 0;
        if self.http2 {
            let oldest = self.with_answers(|answers| answers.front().map(|(_, began)| *began));
            oldest.or_else(|| is_end.then(|| self.at(&self.since)))
        } else {
            (is_end || self.sending.load(Relaxed)).then(|| self.at(&self.answer_began))
        }
    }

    fn note_now(&self, moment: &AtomicU64) {
        moment.store(nanoseconds(self.opened.elapsed()), Relaxed);
    }

    fn at(&self, moment: &AtomicU64) -> Instant {
        self.opened + Duration::from_nanos(moment.load(Relaxed))
    }

    fn with_answers<T>(&self, f: impl FnOnce(&mut VecDeque<(u64, Instant)>) -> T) -> T {
        f(&mut self.answers.lock())
    }
}

/// A hold on a request that is being answered: its own body may still come while the answer goes out.
#[derive(Debug)]
pub(super) struct Answering {
    watch: Arc<Watch>,
    request: u64,
}

impl Answering {
    /// The connection it came on.
    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Notes that the answer begins to go out.
    #[expect(clippy::disallowed_methods, reason = "the connection's time limits start from what the connection does")]
    pub(super) fn note_answer(&self) {
        if self.watch.http2 {
            self.watch.with_answers(|answers| answers.push_back((self.request, Instant::now())));
        } else {
            self.watch.note_now(&self.watch.answer_began);
            self.watch.answered.store(true, Relaxed);
            self.watch.sending.store(true, Relaxed);
        }
    }

    /// Notes that the answer went out, or is given up.
    pub(super) fn note_answer_over(&self) {
        if self.watch.http2 {
            self.watch.with_answers(|answers| answers.retain(|(request, _)| *request != self.request));
        } else {
            self.watch.sending.store(false, Relaxed);
        }
    }

    /// Whether the next request has come: then all of this one has been read off the connection (HTTP/1.1).
    pub(super) fn is_followed(&self) -> bool {
        !self.watch.http2 && self.watch.requests.load(Relaxed) > self.request + 1
    }

    /// Whether the answer's head has said that the connection goes on (HTTP/1.1).
    pub(super) fn has_answered(&self) -> bool {
        self.watch.answered.load(Relaxed)
    }

    /// Notes that nobody reads the rest of the request's body. Over HTTP/2 that concerns its stream only.
    pub(super) fn note_left_unread(&self) {
        self.watch.left_unread.store(!self.watch.http2, Relaxed);
    }
}

impl Clone for Answering {
    fn clone(&self) -> Self {
        self.watch.holds.fetch_add(1, Relaxed);
        Self { watch: self.watch.clone(), request: self.request }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if self.watch.holds.load(Relaxed) == 1 {
            self.watch.note_now(&self.watch.since);
        }
        if self.watch.holds.fetch_sub(1, Relaxed) == 1 {
            self.watch.wake_awaiter();
        }
    }
}
