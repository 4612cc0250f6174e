//! Connections to Cal.com: each worker thread keeps its own, so that taking one needs no lock.
//!
//! Cal.com closes idle connections after a few seconds (FACTS §5). One that has been idle for nearly that long is not
//! used again: a request on it could be lost. A task closes it soon after, because each takes a file descriptor.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::deadline::Alarm;
use super::upload::Upload;

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
    /// The HTTP/2 connection.
    shared: Option<Http2>,
    /// HTTP/2 connections so far.
    made: u64,
    /// Held by who makes it, so that not everyone does; `None` where upstream speaks HTTP/1.1 only.
    turn: Option<Arc<Mutex<()>>>,
}

impl Pool {
    const fn to(upstream: u64) -> Self {
        Self { upstream, idle: Vec::new(), is_swept: false, shared: None, made: 0, turn: None }
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

/// An HTTP/2 connection, for all requests of this worker.
#[derive(Clone)]
pub(super) struct Http2 {
    pub(super) sender: http2::SendRequest<Upload>,
    /// Tells it from those before and after it.
    number: u64,
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
            let is_swept = pool.is_swept;
            *pool = Pool { is_swept, turn: Some(Arc::default()), ..Pool::to(upstream) };
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
        if let Some(shared) = &pool.shared {
            if shared.sender.is_ready() && failed.is_none_or(|failed| shared.number > failed) {
                return Some(Connection::Http2(shared.clone()));
            }
            if shared.sender.is_closed() {
                pool.shared = None;
            }
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
pub(super) fn give_back(upstream: u64, http1: Http1, since: Instant) {
    if http1.sender.is_closed() {
        return;
    }
    with_pool(upstream, |pool| {
        if pool.idle.len() >= MOST_KEPT.load(Ordering::Relaxed) {
            return None;
        }
        if !pool.is_swept {
            pool.is_swept = true;
            tokio::spawn(sweep());
        }
        pool.idle.push((http1, since));
        Some(())
    });
}

/// Closes every idle connection to `upstream` of this worker.
pub(super) fn close_idle(upstream: u64) {
    drop(with_pool(upstream, |pool| Some(std::mem::take(&mut pool.idle))));
}

/// Closes connections that have been idle for too long, until none is idle.
async fn sweep() {
    loop {
        sleep(SWEEP_INTERVAL).await;
        let (closed, is_over) = POOL.with_borrow_mut(|pool| {
            let over = Instant::now().checked_sub(MOST_IDLE);
            let closed = over.map(|moment| pool.idle_before(moment));
            pool.is_swept = !pool.idle.is_empty();
            (closed, !pool.is_swept)
        });
        drop(closed);
        if is_over {
            return;
        }
    }
}

/// Keeps a new HTTP/2 connection for every request of this worker.
pub(super) fn share(upstream: u64, sender: http2::SendRequest<Upload>) -> Connection {
    let mut http2 = Http2 { sender, number: 0 };
    with_pool(upstream, |pool| {
        pool.made += 1;
        http2.number = pool.made;
        pool.shared.replace(http2.clone())
    });
    Connection::Http2(http2)
}

/// Lets go of the HTTP/2 connection with that number: what failed on it is not to be sent on it again.
pub(super) fn leave(upstream: u64, number: u64) {
    with_pool(upstream, |pool| pool.shared.take_if(|shared| shared.number == number));
}

/// What whoever makes a connection to `upstream` holds meanwhile, where the connection may be one for all.
pub(super) fn turn(upstream: u64) -> Option<Arc<Mutex<()>>> {
    with_pool(upstream, |pool| pool.turn.clone())
}

/// Notes that each request to `upstream` needs a connection of its own.
pub(super) fn speaks_http1(upstream: u64) {
    with_pool(upstream, |pool| pool.turn.take());
}
