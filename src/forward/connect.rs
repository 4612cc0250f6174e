//! Opens a connection to Cal.com.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::sleep;

use super::Upstream;
use super::deadline::Alarm;
use super::pool::{self, Connection, Http1};

/// Bytes of an answer's head that are read at most.
const MOST_HEAD: usize = 64 * 1024;

/// How often an HTTP/2 connection is asked whether the other side is still there, also when nothing is going on: one that
/// was lost without a word would cost the next requests their whole patience.
const ASK_IF_ALIVE: Duration = Duration::from_secs(20);

/// How long that answer may take.
const ALIVE_WITHIN: Duration = Duration::from_secs(5);

/// How long an address has to itself before the next one is tried beside it (RFC 8305 §8).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Bytes of one answer over HTTP/2 that wait for its caller to take them. All answers share a connection: no caller may hold
/// up those of others, so there is room on the connection for all of them.
const AHEAD: u32 = 128 * 1024;

/// The most room that a connection can have (RFC 9113 §6.9.1).
const ALL_AHEAD: u32 = (1 << 31) - 1;

/// Connects, TLS included. An HTTP/2 connection is kept for later requests, too.
///
/// # Errors
/// What failed, for the log.
pub(super) async fn connect(upstream: &Upstream) -> Result<Connection, String> {
    let address = (upstream.host.as_str(), upstream.port);
    let addresses = lookup_host(address).await.map_err(|e| format!("the name cannot be looked up: {e}"))?;
    let tcp = first_to_answer(addresses.collect()).await.map_err(|e| format!("connecting failed: {e}"))?;
    tcp.set_nodelay(true).map_err(|e| format!("setting up the socket failed: {e}"))?;
    let Some((connector, name)) = &upstream.tls else { return http1(tcp).await };
    let tls = connector.connect(name.clone(), tcp).await.map_err(|e| format!("TLS failed: {e}"))?;
    if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
        return http2(upstream.id, tls).await;
    }
    pool::speaks_http1(upstream.id);
    http1(tls).await
}

/// Connects to whichever address answers first. Each next one is tried when one before has failed or takes long: a name may
/// have addresses that lead nowhere from here, IPv6 ones for one (RFC 8305 §5).
async fn first_to_answer(addresses: Vec<SocketAddr>) -> std::io::Result<TcpStream> {
    let (mut attempts, mut addresses) = (FuturesUnordered::new(), addresses.into_iter());
    let mut fault = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    loop {
        attempts.extend(addresses.next().map(TcpStream::connect));
        tokio::select! {
            answer = attempts.next() => match answer {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(failed)) => fault = failed,
                None => return Err(fault),
            },
            () = sleep(NEXT_ADDRESS), if addresses.len() > 0 => {}
        }
    }
}

async fn http1<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: T) -> Result<Connection, String> {
    let received = Arc::new(AtomicU64::new(0));
    let io = TokioIo::new(Counted { io, received: received.clone() });
    // Requests are small: one buffer costs less than a list of them.
    let handshake = http1::Builder::new().max_header_size(MOST_HEAD).writev(false).handshake(io).await;
    let (sender, connection) = handshake.map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        if let Err(fault) = connection.await {
            tracing::debug!(%fault, "an upstream connection ended");
        }
    });
    Ok(Connection::Http1(Http1 { sender, received, alarm: Alarm::default() }))
}

async fn http2<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(id: u64, io: T) -> Result<Connection, String> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).max_header_list_size(u32::try_from(MOST_HEAD).unwrap_or(u32::MAX));
    builder.initial_stream_window_size(AHEAD).initial_connection_window_size(ALL_AHEAD);
    builder.keep_alive_interval(ASK_IF_ALIVE).keep_alive_timeout(ALIVE_WITHIN).keep_alive_while_idle(true);
    let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        if let Err(fault) = connection.await {
            tracing::debug!(%fault, "an upstream connection ended");
        }
    });
    Ok(pool::share(id, sender))
}

/// Counts the bytes that arrive: whether a lost request may be sent again depends on whether a byte of its answer came.
struct Counted<T> {
    io: T,
    received: Arc<AtomicU64>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        // Nobody else writes it.
        let received = this.received.load(Ordering::Relaxed) + (buf.filled().len() - before) as u64;
        this.received.store(received, Ordering::Relaxed);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
