//! Connections to Cal.com: each worker thread keeps its own, so that taking one needs no lock.
//!
//! Cal.com closes idle connections after a few seconds (FACTS §5). One that has been idle for nearly that long is not
//! used again: a request on it could be lost.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use tokio::time::Instant;

use super::deadline::Alarm;
use super::upload::Upload;

/// How long a connection may have been idle to be used again: less than the 5 s that older Node servers keep one.
const MOST_IDLE: Duration = Duration::from_secs(4);

/// Idle connections that one worker keeps at most.
const MOST_KEPT: usize = 256;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { upstream: 0, idle: Vec::new(), shared: None }) };
}

struct Pool {
    /// Which upstream the connections are to; a reload that changes it starts afresh.
    upstream: u64,
    /// HTTP/1.1 connections, the last used at the end.
    idle: Vec<(Http1, Instant)>,
    /// The HTTP/2 connection.
    shared: Option<http2::SendRequest<Upload>>,
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
    Http2(http2::SendRequest<Upload>),
}

fn with_pool<T>(upstream: u64, f: impl FnOnce(&mut Pool) -> T) -> T {
    POOL.with_borrow_mut(|pool| {
        if pool.upstream != upstream {
            *pool = Pool { upstream, idle: Vec::new(), shared: None };
        }
        f(pool)
    })
}

/// A connection to `upstream` that is ready at `now`, if this worker has one.
pub(super) fn take(upstream: u64, now: Instant) -> Option<Connection> {
    with_pool(upstream, |pool| {
        if let Some(shared) = &pool.shared {
            if shared.is_ready() {
                return Some(Connection::Http2(shared.clone()));
            }
            if shared.is_closed() {
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
    with_pool(upstream, |pool| {
        if pool.idle.len() < MOST_KEPT {
            pool.idle.push((http1, since));
        }
    });
}

/// Keeps a new HTTP/2 connection for every request of this worker.
pub(super) fn share(upstream: u64, sender: &http2::SendRequest<Upload>) {
    with_pool(upstream, |pool| pool.shared = Some(sender.clone()));
}
