//! Opens a connection to Cal.com.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

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

/// Connects, TLS included. An HTTP/2 connection is kept for later requests, too.
///
/// # Errors
/// What failed, for the log.
pub(super) async fn connect(upstream: &Upstream) -> Result<Connection, String> {
    let address = (upstream.host.as_str(), upstream.port);
    let tcp = TcpStream::connect(address).await.map_err(|e| format!("connecting failed: {e}"))?;
    tcp.set_nodelay(true).map_err(|e| format!("setting up the socket failed: {e}"))?;
    let Some((connector, name)) = &upstream.tls else { return http1(tcp).await };
    let tls = connector.connect(name.clone(), tcp).await.map_err(|e| format!("TLS failed: {e}"))?;
    if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
        return http2(upstream.id, tls).await;
    }
    http1(tls).await
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
    builder.keep_alive_interval(ASK_IF_ALIVE).keep_alive_timeout(ALIVE_WITHIN).keep_alive_while_idle(true);
    let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        if let Err(fault) = connection.await {
            tracing::debug!(%fault, "an upstream connection ended");
        }
    });
    pool::share(id, &sender);
    Ok(Connection::Http2(sender))
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
