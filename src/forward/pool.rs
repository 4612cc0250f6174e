//! Connections to Cal.com: each worker thread keeps its own, so that taking one needs no lock.
//!
//! Cal.com closes idle connections after a few seconds (FACTS §5). One that has been idle for nearly that long is not
//! used again: a request on it could be lost.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::deadline::Alarm;
use super::upload::Upload;

/// How long a connection may have been idle to be used again: less than the 5 s that older Node servers keep one.
const MOST_IDLE: Duration = Duration::from_secs(4);

/// Idle connections that one worker keeps at most.
const MOST_KEPT: usize = 256;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { upstream: 0, idle: Vec::new(), shared: None, made: 0, turn: None }) };
}

struct Pool {
    /// Which upstream the connections are to; a reload that changes it starts afresh.
    upstream: u64,
    /// HTTP/1.1 connections, the last used at the end.
    idle: Vec<(Http1, Instant)>,
    /// The HTTP/2 connection.
    shared: Option<Http2>,
    /// HTTP/2 connections so far.
    made: u64,
    /// Held by who makes it, so that not everyone does; `None` where upstream speaks HTTP/1.1 only.
    turn: Option<Arc<Mutex<()>>>,
}

impl Pool {
    fn to(upstream: u64) -> Self {
        Self { upstream, idle: Vec::new(), shared: None, made: 0, turn: Some(Arc::default()) }
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
    /// The number of a connection that others use, too.
    pub(super) fn shared(&self) -> Option<u64> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(http2) => Some(http2.number),
        }
    }
}

/// The pool of `upstream`, unless it is that of a later one: requests that began before a reload have none any more.
fn with_pool<T>(upstream: u64, f: impl FnOnce(&mut Pool) -> Option<T>) -> Option<T> {
    POOL.with_borrow_mut(|pool| {
        if pool.upstream < upstream {
            *pool = Pool::to(upstream);
        }
        if pool.upstream == upstream { f(pool) } else { None }
    })
}

/// A connection to `upstream` that is ready at `now`, if this worker has one.
pub(super) fn take(upstream: u64, now: Instant) -> Option<Connection> {
    with_pool(upstream, |pool| {
        if let Some(shared) = &pool.shared {
            if shared.sender.is_ready() {
                return Some(Connection::Http2(shared.clone()));
            }
            if shared.sender.is_closed() {
                pool.shared = None;
            }
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
    with_pool(upstream, |pool| (pool.idle.len() < MOST_KEPT).then(|| pool.idle.push((http1, since))));
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
