//! Pool of connections to Cal.com. Each worker thread has its own, so that acquiring a connection needs no lock.
//!
//! Cal.com closes idle connections after a few seconds (FACTS §5). A connection that has been idle for nearly that long is
//! not used again, because a request on it could be lost. A task closes it soon after, to free its file descriptor.

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

/// Maximum idle time of a connection that is used again, 4 s: less than the 5 s after which older Node servers close it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Time between two sweeps for connections that have been idle for too long, 1 s: short compared to [`IDLE_TIMEOUT`].
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum idle connections of one worker: 256, or fewer if file descriptors are scarce.
static MAX_IDLE: AtomicUsize = AtomicUsize::new(MAX_IDLE_LIMIT);

/// Upper bound of [`MAX_IDLE`].
pub const MAX_IDLE_LIMIT: usize = 256;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool::to(0)) };
}

struct Pool {
    /// Upstream of the connections. A reload that changes it empties the pool.
    upstream: u64,
    /// Idle HTTP/1.1 connections and the time at which each became idle. The last used is at the end.
    idle: Vec<(Http1, Instant)>,
    /// Whether a task of this worker closes connections that are idle for too long.
    is_swept: bool,
    /// HTTP/2 connections: one, unless the peer accepts fewer streams than requests need.
    shared: Vec<SharedConnection>,
    /// Number of HTTP/2 connections opened so far.
    opened: u64,
    /// Lock of the request that opens an HTTP/2 connection. Others wait for it. `None` if upstream speaks only HTTP/1.1.
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

    /// Starts the task that closes connections that are idle for too long.
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
            // Frees the memory of a burst.
            self.idle = Vec::new();
        }
        removed
    }
}

/// HTTP/1.1 connection, for one request at a time.
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<Upload>,
    /// Number of bytes received so far.
    pub(super) received: Arc<AtomicU64>,
    /// Timer for the head of a response.
    pub(super) timer: ReusableTimer,
    /// Upstream that it leads to.
    pub(super) upstream: u64,
    /// Time from which the pool does not keep it.
    pub(super) expires: Option<Instant>,
}

impl Http1 {
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// Connection for one request.
pub(super) enum UpstreamConnection {
    Http1(Http1),
    Http2(Http2),
}

/// Part of a connection that a response holds until its end.
pub(super) enum Lease {
    /// The whole connection, to be used again.
    Http1(Http1),
    /// Stream of the connection.
    Stream(#[expect(dead_code, reason = "held, and counted as open until it is dropped")] Stream),
    /// Stream of the connection, which the body of the request holds too.
    Half(#[expect(dead_code, reason = "held, and counted as open until it is dropped")] Arc<Stream>),
}

impl UpstreamConnection {
    /// Returns the number of a shared connection, and 0 for another one.
    pub(super) fn number(&self) -> u64 {
        match self {
            Self::Http1(_) => 0,
            Self::Http2(http2) => http2.number,
        }
    }
}

/// Sets the maximum number of idle connections of each worker.
pub fn set_max_idle(most: usize) {
    MAX_IDLE.store(most.min(MAX_IDLE_LIMIT), Ordering::Relaxed);
}

/// Calls `f` with the pool of `upstream`. Returns `None` if the pool already belongs to a later upstream: requests that
/// started before a reload have no pool any more.
fn with_pool<T>(upstream: u64, f: impl FnOnce(&mut Pool) -> Option<T>) -> Option<T> {
    POOL.with_borrow_mut(|pool| {
        if pool.upstream < upstream {
            // Numbers continue, so that the number of an old connection is lower than those of new ones.
            let (is_swept, opened) = (pool.is_swept, pool.opened);
            let (connect_lock, waiting) = (Some(Arc::default()), Some(Arc::default()));
            *pool = Pool { is_swept, opened, connect_lock, waiting, ..Pool::to(upstream) };
        }
        if pool.upstream == upstream { f(pool) } else { None }
    })
}

/// Returns a connection to `upstream` that is ready at `now`, if this worker has one.
pub(super) fn acquire(upstream: u64, now: Instant) -> Option<UpstreamConnection> {
    acquire_newer(upstream, None, now)
}

/// Returns a connection as [`acquire`] does. If a request failed on the connection numbered `failed`, only a shared
/// connection that was opened later is returned.
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

/// Keeps an HTTP/1.1 connection whose response was read to its end. It counts as idle `since` that time.
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

/// Closes this worker's idle connections to `upstream`.
pub(super) fn close_idle(upstream: u64) {
    drop(with_pool(upstream, |pool| Some(std::mem::take(&mut pool.idle))));
}

/// Closes connections that have been idle for too long or are too old. Ends when no connections are left.
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

/// Returns the number for a new HTTP/2 connection, and the queue of requests that wait for streams.
pub(super) fn next_http2(upstream: u64) -> Option<(u64, Arc<StreamQueue>)> {
    with_pool(upstream, |pool| {
        pool.opened += 1;
        Some((pool.opened, pool.waiting.clone()?))
    })
}

/// Adds a new HTTP/2 connection, which all requests of this worker share.
pub(super) fn insert_shared(upstream: u64, shared: SharedConnection) {
    with_pool(upstream, |pool| {
        pool.sweep_later();
        pool.shared.push(shared);
        Some(())
    });
}

/// Removes the HTTP/2 connection with that number, so that a request that failed on it is not sent on it again.
pub(super) fn evict(upstream: u64, number: u64) {
    with_pool(upstream, |pool| {
        let place = pool.shared.iter().position(|shared| shared.number() == number)?;
        Some(pool.shared.remove(place))
    });
}

/// Returns the lock for opening a shared connection to `upstream`, and the queue of requests that wait for streams. `None` if
/// connections are not shared.
pub(super) fn connect_lock(upstream: u64) -> Option<(Arc<Mutex<()>>, Arc<StreamQueue>)> {
    with_pool(upstream, |pool| Some((pool.connect_lock.clone()?, pool.waiting.clone()?)))
}

/// Records that each request to `upstream` needs a connection of its own.
pub(super) fn mark_http1_only(upstream: u64) {
    with_pool(upstream, |pool| pool.connect_lock.take());
}

/// Records that requests to `upstream` share connections after all.
pub(super) fn mark_http2(upstream: u64) {
    with_pool(upstream, |pool| {
        pool.connect_lock.get_or_insert_default();
        Some(())
    });
}
