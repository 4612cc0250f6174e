//! What a connection is doing, and until when it may: the deadlines hyper does not have.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::limits::Bounds;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Nothing came yet, or the last request is over.
    Idle,
    /// A head has begun and not ended.
    Head,
    /// So many requests are being answered.
    Answering(u32),
}

#[derive(Debug)]
struct State {
    doing: Doing,
    since: Instant,
    fresh: bool,
    /// Whether the last request came with a body, which may not have been read to its end.
    had_body: bool,
    /// Whether the last request's body was let go of before its end: what comes next is the rest of it, and no head.
    left_unread: bool,
    /// When each answer that is going out began, the oldest first, by the number of its request.
    answers: VecDeque<(u64, Instant)>,
    /// Requests so far.
    requests: u64,
}

/// Shared by a connection's transport, its service and its driver.
#[derive(Debug)]
pub(super) struct Watch {
    state: Mutex<State>,
    opened: Instant,
    http2: bool,
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
        let state = State {
            doing: Doing::Idle,
            since: now,
            fresh: true,
            had_body: false,
            left_unread: false,
            answers: VecDeque::new(),
            requests: 0,
        };
        Self { state: Mutex::new(state), opened: now, http2 }
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that bytes came. Answers whether they begin a head.
    pub(super) fn bytes_came(&self) -> bool {
        self.with(|state| match state.doing {
            Doing::Idle if !self.http2 => {
                (state.doing, state.since) = (Doing::Head, Instant::now());
                (state.fresh, state.had_body) = (false, false);
                true
            }
            Doing::Idle | Doing::Head | Doing::Answering(_) => false,
        })
    }

    /// Whether a head has begun and not ended.
    pub(super) fn is_in_head(&self) -> bool {
        self.with(|state| state.doing == Doing::Head)
    }

    /// Whether nothing is going on.
    pub(super) fn is_idle(&self) -> bool {
        self.with(|state| state.doing == Doing::Idle)
    }

    /// Whether the last request came with a body.
    pub(super) fn had_body(&self) -> bool {
        self.with(|state| state.had_body)
    }

    /// Whether the rest of a body comes that nobody reads.
    pub(super) fn has_left_unread(&self) -> bool {
        self.with(|state| state.left_unread)
    }

    /// Notes that a request is being answered, until the last hold of the guard is dropped.
    pub(super) fn answering(self: &Arc<Self>, has_body: bool) -> Arc<Answering> {
        let request = self.with(|state| {
            state.doing = match state.doing {
                Doing::Answering(n) => Doing::Answering(n + 1),
                Doing::Idle | Doing::Head => Doing::Answering(1),
            };
            state.fresh = false;
            state.had_body = has_body;
            state.requests += 1;
            state.requests
        });
        Arc::new(Answering { watch: self.clone(), request })
    }

    /// What is to be done at `now`.
    pub(super) fn verdict(&self, now: Instant, limits: &Bounds) -> Verdict {
        let aged = self.opened + limits.connection_age;
        let oldest_answer = self.with(|state| state.answers.front().map(|(_, began)| *began));
        // The answer's own deadline is looked at only when the caller takes more of it.
        let stuck = oldest_answer.map(|began| began + limits.upstream_total);
        let (end, verdict) = self.with(|state| match state.doing {
            Doing::Idle if state.fresh => (state.since + limits.first_byte, Verdict::End),
            Doing::Idle => (state.since + limits.idle, Verdict::End),
            Doing::Head => (state.since + limits.head, Verdict::LateHead),
            // The requests have deadlines of their own; look again when one could be over.
            Doing::Answering(_) => (now + Duration::from_secs(1).max(limits.head.min(limits.idle)), Verdict::End),
        });
        if stuck.is_some_and(|stuck| now >= stuck) {
            Verdict::Stuck
        } else if now >= end {
            verdict
        } else if now >= aged {
            Verdict::End
        } else {
            Verdict::GoOn(end.min(aged).min(stuck.unwrap_or(end)))
        }
    }
}

/// A request that is being answered: its own body may still come while the answer goes out.
#[derive(Debug)]
pub(super) struct Answering {
    watch: Arc<Watch>,
    request: u64,
}

impl Answering {
    /// Notes that the answer begins to go out.
    pub(super) fn note_answer(&self) {
        self.watch.with(|state| state.answers.push_back((self.request, Instant::now())));
    }

    /// Notes that the answer went out, or is given up.
    pub(super) fn note_answer_over(&self) {
        self.watch.with(|state| state.answers.retain(|(request, _)| *request != self.request));
    }

    /// Notes that nobody reads the rest of the request's body. Over HTTP/2 that concerns its stream only.
    pub(super) fn note_left_unread(&self) {
        self.watch.with(|state| state.left_unread = !self.watch.http2);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.watch.with(|state| {
            if let Doing::Answering(n) = state.doing {
                let left = n.saturating_sub(1);
                state.doing = if left == 0 { Doing::Idle } else { Doing::Answering(left) };
                state.since = Instant::now();
            }
        });
    }
}
