//! Connections to Cal.com: each worker thread keeps its own, so that taking one needs no lock.
//!
//! Cal.com closes idle connections after a few seconds (FACTS §5). One that has been idle for nearly that long is not
//! used again: a request on it could be lost. A task closes it soon after, because each takes a file descriptor.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::client::conn::http1;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::http2::{Http2, Shared, Stream, Waiting};
use super::upload::Upload;
use crate::forward::timeout::Alarm;

/// How long a connection may have been idle to be used again: less than the 5 s that older Node servers keep one.
const MOST_IDLE: Duration = Duration::from_secs(4);

/// Time between two looks for connections that have been idle for too long, 1 s: short beside [`MOST_IDLE`].
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Idle connections that one worker keeps at most: 256, or fewer where file descriptors are short.
static MOST_KEPT: AtomicUsize = AtomicUsize::new(MAX_KEPT);

/// Upper bound of [`MOST_KEPT`].
pub const MAX_KEPT: usize = 256;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool::to(0)) };
}

struct Pool {
    /// Which upstream the connections are to; a reload that changes it starts afresh.
    upstream: u64,
    /// Idle HTTP/1.1 connections and when each became idle, the last used at the end.
    idle: Vec<(Http1, Instant)>,
    /// Whether a task of this worker closes what is idle for too long.
    is_swept: bool,
    /// HTTP/2 connections: one, unless the peer takes fewer streams than are wanted.
    shared: Vec<Shared>,
    /// HTTP/2 connections so far.
    made: u64,
    /// Held by who makes an HTTP/2 connection, so that not everyone does; `None` where upstream speaks HTTP/1.1 only.
    turn: Option<Arc<Mutex<()>>>,
    /// Requests that wait for a stream.
    waiting: Option<Arc<Waiting>>,
}

impl Pool {
    const fn to(upstream: u64) -> Self {
        Self { upstream, idle: Vec::new(), is_swept: false, shared: Vec::new(), made: 0, turn: None, waiting: None }
    }

    /// Has a task close what is idle for too long.
    #[expect(clippy::disallowed_methods, reason = "the task that closes idle connections ends with its worker")]
    fn sweep_later(&mut self) {
        if !self.is_swept {
            self.is_swept = true;
            tokio::spawn(sweep());
        }
    }

    /// Removes the idle connections that became idle before `moment`.
    fn idle_before(&mut self, moment: Instant) -> Vec<(Http1, Instant)> {
        let count = self.idle.iter().take_while(|(_, since)| *since <= moment).count();
        let removed = self.idle.drain(..count).collect();
        if self.idle.is_empty() {
            // A burst leaves no memory behind.
            self.idle = Vec::new();
        }
        removed
    }
}

/// An HTTP/1.1 connection, for one request at a time.
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<Upload>,
    /// Bytes that have arrived on it so far.
    pub(super) received: Arc<AtomicU64>,
    /// By when the head of an answer has to be there.
    pub(super) alarm: Alarm,
    /// Which upstream it is to.
    pub(super) upstream: u64,
    /// When the pool lets go of it.
    pub(super) expires: Option<Instant>,
}

impl Http1 {
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// A connection that a request can be sent on.
pub(super) enum Connection {
    Http1(Http1),
    Http2(Http2),
}

/// The part of a connection that a response holds until its end.
pub(super) enum Lease {
    /// All of it, to be used again.
    Http1(Http1),
    /// Its stream.
    Stream(#[expect(dead_code, reason = "held, and counted as open until it is dropped")] Stream),
    /// Its stream, which the body of the request holds, too.
    Half(#[expect(dead_code, reason = "held, and counted as open until it is dropped")] Arc<Stream>),
}

impl Connection {
    /// The number of a connection that other requests use, too; 0 for one that they do not.
    pub(super) fn number(&self) -> u64 {
        match self {
            Self::Http1(_) => 0,
            Self::Http2(http2) => http2.number,
        }
    }
}

/// Sets how many idle connections each worker keeps at most.
pub fn keep_idle(most: usize) {
    MOST_KEPT.store(most.min(MAX_KEPT), Ordering::Relaxed);
}

/// The pool of `upstream`, unless it is that of a later one: requests that began before a reload have none any more.
fn with_pool<T>(upstream: u64, f: impl FnOnce(&mut Pool) -> Option<T>) -> Option<T> {
    POOL.with_borrow_mut(|pool| {
        if pool.upstream < upstream {
            // Its numbers go on: a request that failed on an old connection is told from those on new ones.
            let (is_swept, made) = (pool.is_swept, pool.made);
            let (turn, waiting) = (Some(Arc::default()), Some(Arc::default()));
            *pool = Pool { is_swept, made, turn, waiting, ..Pool::to(upstream) };
        }
        if pool.upstream == upstream { f(pool) } else { None }
    })
}

/// A connection to `upstream` that is ready at `now`, if this worker has one.
pub(super) fn take(upstream: u64, now: Instant) -> Option<Connection> {
    take_newer(upstream, None, now)
}

/// The same. After a request failed on the connection numbered `failed`: one that was opened later, and no idle one.
pub(super) fn take_newer(upstream: u64, failed: Option<u64>, now: Instant) -> Option<Connection> {
    with_pool(upstream, |pool| {
        if !pool.shared.is_empty() {
            pool.shared.retain(|shared| !shared.is_over(now));
        }
        if let Some(http2) = pool.shared.iter_mut().find_map(|shared| shared.stream(failed, now)) {
            return Some(Connection::Http2(http2));
        }
        if failed.is_some() {
            return None;
        }
        while let Some((http1, since)) = pool.idle.pop() {
            if now.duration_since(since) < MOST_IDLE && http1.sender.is_ready() {
                return Some(Connection::Http1(http1));
            }
        }
        None
    })
}

/// Keeps an HTTP/1.1 connection whose answer was read to its end, and counts it as idle `since` then.
pub(super) fn give_back(http1: Http1, since: Instant) {
    if http1.sender.is_closed() || http1.expires.is_some_and(|expires| expires <= since) {
        return;
    }
    with_pool(http1.upstream, |pool| {
        if pool.idle.len() >= MOST_KEPT.load(Ordering::Relaxed) {
            return None;
        }
        pool.sweep_later();
        pool.idle.push((http1, since));
        Some(())
    });
}

/// Closes every idle connection to `upstream` of this worker.
pub(super) fn close_idle(upstream: u64) {
    drop(with_pool(upstream, |pool| Some(std::mem::take(&mut pool.idle))));
}

/// Closes connections that have been idle for too long, or are too old, until there are no more.
async fn sweep() {
    loop {
        sleep(SWEEP_INTERVAL).await;
        let (closed, is_over) = POOL.with_borrow_mut(|pool| {
            let now = Instant::now();
            let idle = now.checked_sub(MOST_IDLE).map(|moment| pool.idle_before(moment));
            let shared: Vec<_> = pool.shared.extract_if(.., |shared| shared.is_over(now)).collect();
            pool.is_swept = !pool.idle.is_empty() || !pool.shared.is_empty();
            ((idle, shared), !pool.is_swept)
        });
        drop(closed);
        if is_over {
            return;
        }
    }
}

/// The number of a new HTTP/2 connection, and who waits for its streams.
pub(super) fn next_http2(upstream: u64) -> Option<(u64, Arc<Waiting>)> {
    with_pool(upstream, |pool| {
        pool.made += 1;
        Some((pool.made, pool.waiting.clone()?))
    })
}

/// Keeps a new HTTP/2 connection for every request of this worker.
pub(super) fn share(upstream: u64, shared: Shared) {
    with_pool(upstream, |pool| {
        pool.sweep_later();
        pool.shared.push(shared);
        Some(())
    });
}

/// Lets go of the HTTP/2 connection with that number: what failed on it is not to be sent on it again.
pub(super) fn leave(upstream: u64, number: u64) {
    with_pool(upstream, |pool| {
        let place = pool.shared.iter().position(|shared| shared.number() == number)?;
        Some(pool.shared.remove(place))
    });
}

/// What whoever makes a connection to `upstream` holds meanwhile, where the connection may be one for all, and those who wait
/// for a stream on one.
pub(super) fn turn(upstream: u64) -> Option<(Arc<Mutex<()>>, Arc<Waiting>)> {
    with_pool(upstream, |pool| Some((pool.turn.clone()?, pool.waiting.clone()?)))
}

/// Notes that each request to `upstream` needs a connection of its own.
pub(super) fn speaks_http1(upstream: u64) {
    with_pool(upstream, |pool| pool.turn.take());
}

/// Notes that requests to `upstream` share a connection after all.
pub(super) fn speaks_http2(upstream: u64) {
    with_pool(upstream, |pool| {
        pool.turn.get_or_insert_default();
        Some(())
    });
}
