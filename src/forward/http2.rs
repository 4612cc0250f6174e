//! HTTP/2 connection to Cal.com, with no more concurrent requests than the peer accepts.
//!
//! hyper would queue further requests, and would send them even after calgate has given them up. So calgate counts the
//! streams itself: a request waits in the pool for its [`Stream`] before hyper gets it.

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

/// Maximum length of a response head, 64 KiB.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// Time without a frame during a request after which a PING tests the connection, 2 s. The PING answer takes one round trip,
/// so a dead connection holds its requests no longer than this and [`PING_TIMEOUT`].
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(2);

/// Time for the answer to a PING, 3 s: enough to send one lost packet again.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Time without a request after which a connection is closed, 60 s. A device on the path, such as a NAT gateway, forgets an
/// idle connection, and the next request would be lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Flow-control window of one stream, 128 KiB (RFC 9113 §5.2): the bytes of a response that may wait for a slow client.
const STREAM_WINDOW: u32 = 128 * 1024;

/// Flow-control window of a connection: the largest one (RFC 9113 §6.9.1), so that no slow client delays other responses.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// Stream limit of a connection whose peer has not sent one yet. No peer can send this value, because a setting has 32 bits
/// (RFC 9113 §6.5.1).
const UNKNOWN_STREAM_LIMIT: usize = usize::MAX - 1;

type Io = TokioIo<ObservedIo<TlsStream<TcpStream>, SettingsObserver>>;

/// Connection and its state, shared by its driver task and its streams.
struct DrivenConnection {
    /// hyper's connection, which knows the peer's stream limit. `None` once it has ended. The driver task and the requests
    /// that read the limit lock it on one thread, so no lock attempt waits.
    connection: Mutex<Option<http2::Connection<Io, Upload, TokioExecutor>>>,
    /// Number of streams that are open or reserved.
    streams: AtomicUsize,
    waiting: Arc<StreamQueue>,
}

impl DrivenConnection {
    fn connection(&self) -> MutexGuard<'_, Option<http2::Connection<Io, Upload, TokioExecutor>>> {
        self.connection.lock()
    }

    /// Returns the number of concurrent streams that the peer accepts.
    fn limit(&self) -> usize {
        match self.connection().as_ref().map(http2::Connection::current_max_send_streams) {
            Some(UNKNOWN_STREAM_LIMIT) => 1,
            Some(limit) => limit,
            None => 0,
        }
    }
}

/// Queue of a worker's requests that wait for a stream.
#[derive(Debug, Default)]
pub(super) struct StreamQueue {
    requests: AtomicUsize,
    /// Wakes one of them when a stream may be free.
    pub(super) freed: Notify,
}

impl StreamQueue {
    /// Counts one more waiting request until the guard is dropped.
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

/// Guard of a waiting request. When the request has its stream, the guard wakes another one.
pub(super) struct QueuedRequest<'a>(&'a StreamQueue);

impl Drop for QueuedRequest<'_> {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
        self.0.wake();
    }
}

/// Connection in the pool. Once this is dropped, the connection accepts no more requests and ends after the current ones.
pub(super) struct SharedConnection {
    sender: http2::SendRequest<Upload>,
    /// Number of the connection. Later connections have larger numbers.
    number: u64,
    /// Time from which the pool does not keep it.
    expires: Option<Instant>,
    /// Time of the last request on it.
    used: Instant,
    driven: Arc<DrivenConnection>,
}

/// Connection, and the right to open one stream on it.
pub(super) struct Http2 {
    pub(super) sender: http2::SendRequest<Upload>,
    pub(super) number: u64,
    pub(super) stream: Stream,
}

/// Stream that counts as open until this is dropped.
pub(super) struct Stream(Arc<DrivenConnection>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
        self.0.waiting.wake();
    }
}

impl SharedConnection {
    /// Reserves a stream for a request that is sent `now`. Returns `None` if the peer accepts no further stream, or if the
    /// connection is not newer than the one numbered `failed`.
    pub(super) fn stream(&mut self, failed: Option<u64>, now: Instant) -> Option<Http2> {
        if !self.sender.is_ready() || failed.is_some_and(|failed| self.number <= failed) {
            return None;
        }
        // Only this thread reserves streams, so the count does not change in between.
        if self.driven.streams.load(Ordering::Relaxed) >= self.driven.limit() {
            return None;
        }
        self.driven.streams.fetch_add(1, Ordering::Relaxed);
        self.used = now;
        Some(Http2 { sender: self.sender.clone(), number: self.number, stream: Stream(self.driven.clone()) })
    }

    /// Returns the number of the connection.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Returns whether the pool must drop it: it has ended, is too old, or was not used for [`IDLE_TIMEOUT`].
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let is_idle =
            || self.driven.streams.load(Ordering::Relaxed) == 0 && now.duration_since(self.used) > IDLE_TIMEOUT;
        self.sender.is_closed() || self.expires.is_some_and(|expires| expires <= now) || is_idle()
    }
}

/// Speaks HTTP/2 on `tls`, with a stream for the first request. With a `connect_guard`, other requests of this worker share the
/// connection. The guard is dropped once the peer's limit of streams is known.
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

/// Drives a connection until it ends.
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
