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

use super::http2::{Http2, SharedConnection, Stream, StreamQueue};
use super::upload::Upload;
use crate::forward::timeout::ReusableTimer;

/// How long a connection may have been idle to be used again: less than the 5 s that older Node servers keep one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Time between two looks for connections that have been idle for too long, 1 s: short beside [`IDLE_TIMEOUT`].
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Idle connections that one worker keeps at most: 256, or fewer where file descriptors are short.
static MAX_IDLE: AtomicUsize = AtomicUsize::new(MAX_IDLE_LIMIT);

/// Upper bound of [`MAX_IDLE`].
pub const MAX_IDLE_LIMIT: usize = 256;

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
    shared: Vec<SharedConnection>,
    /// HTTP/2 connections so far.
    opened: u64,
    /// Held by who makes an HTTP/2 connection, so that not everyone does; `None` where upstream speaks HTTP/1.1 only.
    connect_lock: Option<Arc<Mutex<()>>>,
    /// Requests that wait for a stream.
    waiting: Option<Arc<StreamQueue>>,
}

impl Pool {
    const fn to(upstream: u64) -> Self {
        Self {
            upstream,
            idle: Vec::new(),
            is_swept: false,
            shared: Vec::new(),
            opened: 0,
            connect_lock: None,
            waiting: None,
        }
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
    pub(super) timer: ReusableTimer,
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
pub(super) enum UpstreamConnection {
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

impl UpstreamConnection {
    /// The number of a connection that other requests use, too; 0 for one that they do not.
    pub(super) fn number(&self) -> u64 {
        match self {
            Self::Http1(_) => 0,
            Self::Http2(http2) => http2.number,
        }
    }
}

/// Sets how many idle connections each worker keeps at most.
pub fn set_max_idle(most: usize) {
    MAX_IDLE.store(most.min(MAX_IDLE_LIMIT), Ordering::Relaxed);
}

/// The pool of `upstream`, unless it is that of a later one: requests that began before a reload have none any more.
fn with_pool<T>(upstream: u64, f: impl FnOnce(&mut Pool) -> Option<T>) -> Option<T> {
    POOL.with_borrow_mut(|pool| {
        if pool.upstream < upstream {
            // Its numbers go on: a request that failed on an old connection is told from those on new ones.
            let (is_swept, opened) = (pool.is_swept, pool.opened);
            let (connect_lock, waiting) = (Some(Arc::default()), Some(Arc::default()));
            *pool = Pool { is_swept, opened, connect_lock, waiting, ..Pool::to(upstream) };
        }
        if pool.upstream == upstream { f(pool) } else { None }
    })
}

/// A connection to `upstream` that is ready at `now`, if this worker has one.
pub(super) fn acquire(upstream: u64, now: Instant) -> Option<UpstreamConnection> {
    acquire_newer(upstream, None, now)
}

/// The same. After a request failed on the connection numbered `failed`: one that was opened later, and no idle one.
pub(super) fn acquire_newer(upstream: u64, failed: Option<u64>, now: Instant) -> Option<UpstreamConnection> {
    with_pool(upstream, |pool| {
        if !pool.shared.is_empty() {
            pool.shared.retain(|shared| !shared.is_over(now));
        }
        if let Some(http2) = pool.shared.iter_mut().find_map(|shared| shared.stream(failed, now)) {
            return Some(UpstreamConnection::Http2(http2));
        }
        if failed.is_some() {
            return None;
        }
        while let Some((http1, since)) = pool.idle.pop() {
            if now.duration_since(since) < IDLE_TIMEOUT && http1.sender.is_ready() {
                return Some(UpstreamConnection::Http1(http1));
            }
        }
        None
    })
}

/// Keeps an HTTP/1.1 connection whose answer was read to its end, and counts it as idle `since` then.
pub(super) fn release(http1: Http1, since: Instant) {
    if http1.sender.is_closed() || http1.expires.is_some_and(|expires| expires <= since) {
        return;
    }
    with_pool(http1.upstream, |pool| {
        if pool.idle.len() >= MAX_IDLE.load(Ordering::Relaxed) {
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
            let idle = now.checked_sub(IDLE_TIMEOUT).map(|moment| pool.idle_before(moment));
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
pub(super) fn next_http2(upstream: u64) -> Option<(u64, Arc<StreamQueue>)> {
    with_pool(upstream, |pool| {
        pool.opened += 1;
        Some((pool.opened, pool.waiting.clone()?))
    })
}

/// Keeps a new HTTP/2 connection for every request of this worker.
pub(super) fn insert_shared(upstream: u64, shared: SharedConnection) {
    with_pool(upstream, |pool| {
        pool.sweep_later();
        pool.shared.push(shared);
        Some(())
    });
}

/// Lets go of the HTTP/2 connection with that number: what failed on it is not to be sent on it again.
pub(super) fn evict(upstream: u64, number: u64) {
    with_pool(upstream, |pool| {
        let place = pool.shared.iter().position(|shared| shared.number() == number)?;
        Some(pool.shared.remove(place))
    });
}

/// What whoever makes a connection to `upstream` holds meanwhile, where the connection may be one for all, and those who wait
/// for a stream on one.
pub(super) fn connect_lock(upstream: u64) -> Option<(Arc<Mutex<()>>, Arc<StreamQueue>)> {
    with_pool(upstream, |pool| Some((pool.connect_lock.clone()?, pool.waiting.clone()?)))
}

/// Notes that each request to `upstream` needs a connection of its own.
pub(super) fn mark_http1_only(upstream: u64) {
    with_pool(upstream, |pool| pool.connect_lock.take());
}

/// Notes that requests to `upstream` share a connection after all.
pub(super) fn mark_http2(upstream: u64) {
    with_pool(upstream, |pool| {
        pool.connect_lock.get_or_insert_default();
        Some(())
    });
}
