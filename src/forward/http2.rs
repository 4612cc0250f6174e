//! An HTTP/2 connection to Cal.com, with no more requests on it than the peer takes at once.
//!
//! The library would queue the others, and would send them when calgate gives them up. So calgate counts the streams itself:
//! a request gets its [`Stream`] before it is handed over, and waits for one in the pool.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::{Mutex, MutexGuard};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::connect::ConnectGuard;
use super::io::{ObservedIo, SettingsObserver, SettingsWait};
use super::pool::{self, UpstreamConnection};
use super::upload::Upload;
use crate::forward::failure::describe;

/// Bytes of a response's head that are read at most.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// Time without a frame while a response is awaited, after which a PING asks whether the path is alive: 2 s. An answer takes
/// one round trip, so a dead path holds the requests on it no longer than this and [`PING_TIMEOUT`].
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// Time for the answer to a PING, 3 s: one lost packet may be sent again in it.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Time without a request after which a connection is closed, 60 s: a path that is not used is forgotten by what is on it,
/// such as a NAT gateway, and the next request would be lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of one response that wait for its client to take them. All responses share a connection: no client may hold up
/// those of others, so there is room on the connection for all of them.
const STREAM_WINDOW: u32 = 128 * 1024;

/// The most room that a connection can have (RFC 9113 §6.9.1).
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// Stream limit of a connection whose peer has not said one yet. No peer can say it: a setting has 32 bits (RFC 9113 §6.5.1).
const UNKNOWN_STREAM_LIMIT: usize = usize::MAX - 1;

type Io = TokioIo<ObservedIo<TlsStream<TcpStream>, SettingsObserver>>;

/// The connection itself, for as long as it is driven or has streams.
struct DrivenConnection {
    /// The library's connection, which knows the peer's stream limit; `None` once it has ended. Its own task locks it to drive
    /// it, and a request to ask for the limit, both on one thread: nobody waits for this lock.
    connection: Mutex<Option<http2::Connection<Io, Upload, TokioExecutor>>>,
    /// Streams that are open or promised.
    streams: AtomicUsize,
    waiting: Arc<StreamQueue>,
}

impl DrivenConnection {
    fn connection(&self) -> MutexGuard<'_, Option<http2::Connection<Io, Upload, TokioExecutor>>> {
        self.connection.lock()
    }

    /// How many streams the peer takes at once.
    fn limit(&self) -> usize {
        match self.connection().as_ref().map(http2::Connection::current_max_send_streams) {
            Some(UNKNOWN_STREAM_LIMIT) => 1,
            Some(limit) => limit,
            None => 0,
        }
    }
}

/// Requests of a worker that wait for a stream.
#[derive(Debug, Default)]
pub(super) struct StreamQueue {
    requests: AtomicUsize,
    /// Tells one of them that a stream may be free.
    pub(super) freed: Notify,
}

impl StreamQueue {
    /// Counts one more request until the guard is dropped.
    pub(super) fn count(&self) -> QueuedRequest<'_> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        QueuedRequest(self)
    }

    fn wake(&self) {
        if self.requests.load(Ordering::Relaxed) > 0 {
            self.freed.notify_one();
        }
    }
}

/// One of the requests that wait. When it has its stream, another one looks for the next.
pub(super) struct QueuedRequest<'a>(&'a StreamQueue);

impl Drop for QueuedRequest<'_> {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
        self.0.wake();
    }
}

/// A connection as the pool keeps it. It takes no more requests once this is dropped, and ends after those it has.
pub(super) struct SharedConnection {
    sender: http2::SendRequest<Upload>,
    /// Tells it from those before and after it.
    number: u64,
    /// When the pool lets go of it.
    expires: Option<Instant>,
    /// When a request was last sent on it.
    used: Instant,
    driven: Arc<DrivenConnection>,
}

/// A connection and the right to open one stream on it.
pub(super) struct Http2 {
    pub(super) sender: http2::SendRequest<Upload>,
    pub(super) number: u64,
    pub(super) stream: Stream,
}

/// A stream that counts as open until this is dropped.
pub(super) struct Stream(Arc<DrivenConnection>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
        self.0.waiting.wake();
    }
}

impl SharedConnection {
    /// A stream for a request that is sent `now`, if the peer takes another one and the connection is newer than the one
    /// numbered `failed`.
    pub(super) fn stream(&mut self, failed: Option<u64>, now: Instant) -> Option<Http2> {
        if !self.sender.is_ready() || failed.is_some_and(|failed| self.number <= failed) {
            return None;
        }
        // Only this thread takes streams, so nobody comes between.
        if self.driven.streams.load(Ordering::Relaxed) >= self.driven.limit() {
            return None;
        }
        self.driven.streams.fetch_add(1, Ordering::Relaxed);
        self.used = now;
        Some(Http2 { sender: self.sender.clone(), number: self.number, stream: Stream(self.driven.clone()) })
    }

    /// Its number.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether the pool is to let go of it: it has ended, is too old, or was not used for [`IDLE_TIMEOUT`].
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let is_idle =
            || self.driven.streams.load(Ordering::Relaxed) == 0 && now.duration_since(self.used) > IDLE_TIMEOUT;
        self.sender.is_closed() || self.expires.is_some_and(|expires| expires <= now) || is_idle()
    }
}

/// Speaks HTTP/2 on `tls`, with a stream for the first request. With a `connect_guard`, this worker's other requests use the connection,
/// too: that ends when the peer has said how many streams it takes.
///
/// # Errors
/// What failed, for the log.
#[expect(clippy::disallowed_methods, reason = "the task that drives a connection ends with the connection")]
pub(super) async fn open(
    upstream: u64,
    tls: TlsStream<TcpStream>,
    connect_guard: Option<ConnectGuard>,
    expires: Option<Instant>,
) -> Result<UpstreamConnection, String> {
    let settings = Arc::new(SettingsWait::default());
    let io = TokioIo::new(ObservedIo::new(tls, SettingsObserver(Some(settings.clone()))));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
    builder.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    builder.initial_max_send_streams(UNKNOWN_STREAM_LIMIT);
    builder.keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_TIMEOUT);
    let (sender, connection) = builder.handshake(io).await.map_err(|e| e.to_string())?;
    let (number, waiting) = connect_guard.as_ref().and_then(|_| pool::next_http2(upstream)).unwrap_or_default();
    let connection = Mutex::new(Some(connection));
    let driven = Arc::new(DrivenConnection { connection, streams: AtomicUsize::new(0), waiting });
    let mut shared = SharedConnection { sender, number, expires, used: Instant::now(), driven: driven.clone() };
    let first = shared.stream(None, Instant::now()).ok_or("the connection ended at once")?;
    if connect_guard.is_some() {
        pool::insert_shared(upstream, shared);
    }
    tokio::spawn(drive(driven, settings, connect_guard));
    Ok(UpstreamConnection::Http2(first))
}

/// Drives a connection to its end.
async fn drive(driven: Arc<DrivenConnection>, settings: Arc<SettingsWait>, connect_guard: Option<ConnectGuard>) {
    let mut before_settings = Some((settings, connect_guard));
    let ended = poll_fn(|cx| {
        if let Some((settings, _)) = &before_settings {
            settings.task.register(cx.waker());
        }
        let mut guard = driven.connection();
        let Some(connection) = guard.as_mut() else { return Poll::Ready(Ok(())) };
        let polled = Pin::new(&mut *connection).poll(cx);
        if connection.current_max_send_streams() != UNKNOWN_STREAM_LIMIT
            && let Some((settings, _turn)) = before_settings.take()
        {
            settings.is_over.store(true, Ordering::Relaxed);
            driven.waiting.wake();
        }
        if polled.is_ready() {
            *guard = None;
        }
        polled
    })
    .await;
    if let Err(fault) = ended {
        tracing::debug!(fault = describe(&fault), "an upstream connection ended");
    }
}
