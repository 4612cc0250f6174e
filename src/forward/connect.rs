//! Opens a connection to Cal.com: name, TCP, proxy, TLS, HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep, timeout};

use super::Upstream;
use super::http2::{self, MAX_HEAD};
use super::io::{ByteCounter, ObservedIo};
use super::pool::{self, Http1, UpstreamConnection};
use super::proxy;
use crate::forward::failure::describe;
use crate::forward::timeout::ReusableTimer;

/// Delay before a connection attempt to the next address starts, 250 ms (RFC 8305 §8).
const CONNECTION_ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Time for which sent bytes may stay unacknowledged before the connection counts as dead, 10 s. Otherwise each request on a
/// path that silently failed would wait for its whole `limits.upstream_headers`.
#[cfg(target_os = "linux")]
pub(super) const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// Right to open the HTTP/2 connection of a worker. It is dropped when other requests can use that connection.
pub(super) type ConnectGuard = OwnedMutexGuard<()>;

/// Opens a connection, including TLS. The pool keeps an HTTP/2 connection for later requests too.
///
/// # Errors
/// The failure, for the log.
pub(super) async fn connect(
    upstream: &Upstream,
    connect_guard: Option<ConnectGuard>,
) -> Result<UpstreamConnection, String> {
    let addresses = upstream.resolver.addresses(upstream.lookup_timeout).await;
    let addresses = addresses.map_err(|fault| match &upstream.proxy {
        Some(proxy) => format!("the proxy {}: {fault}", proxy.address()),
        None => fault,
    })?;
    let opened = timeout(upstream.connect_timeout, open(upstream, &addresses, connect_guard)).await;
    let opened = opened.unwrap_or_else(|_| Err("connecting took longer than limits.upstream_connect".to_owned()));
    if opened.is_err() {
        upstream.resolver.expire();
    }
    opened
}

async fn open(
    upstream: &Upstream,
    addresses: &[SocketAddr],
    connect_guard: Option<ConnectGuard>,
) -> Result<UpstreamConnection, String> {
    let mut tcp = happy_eyeballs(addresses).await.map_err(|fault| match &upstream.proxy {
        Some(proxy) => format!("connecting to the proxy {} failed: {fault}", proxy.address()),
        None => format!("connecting failed: {fault}"),
    })?;
    set_up(&tcp).map_err(|e| format!("setting up the socket failed: {e}"))?;
    if let Some(proxy) = &upstream.proxy {
        tcp = proxy::tunnel(tcp, proxy, &upstream.tunnel_target).await?;
    }
    let id = upstream.id();
    let expires = Instant::now().checked_add(upstream.connection_age);
    let Some((connector, name)) = &upstream.tls else { return http1(id, tcp, expires).await };
    let tls = connector.connect(name.clone(), tcp).await.map_err(|fault| tls_failed(&fault))?;
    if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
        return http2::open(id, tls, connect_guard, expires).await;
    }
    pool::mark_http1_only(id);
    http1(id, tls, expires).await
}

fn set_up(tcp: &TcpStream) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    SockRef::from(tcp).set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

/// Returns the error of a failed handshake, and the setting that solves it.
fn tls_failed(fault: &std::io::Error) -> String {
    let fault = fault.to_string();
    format!("TLS failed: {fault}{}", tls_remedy(&fault))
}

/// Returns the remedy for the error text of a failed handshake. Empty if there is none.
pub(super) fn tls_remedy(fault: &str) -> &'static str {
    // A bad signature means that an authority of the same name has another key.
    if ["UnknownIssuer", "BadSignature"].iter().any(|word| fault.contains(word)) {
        "; calgate does not know the certificate's issuer: set upstream.ca_file, or upstream.roots to \"system\" or \"both\""
    } else {
        ""
    }
}

/// Connects to the address that answers first. The attempt to the next address starts when an earlier one fails or takes long
/// (RFC 8305 §5). A name may have addresses that this network does not reach, such as IPv6 ones.
async fn happy_eyeballs(addresses: &[SocketAddr]) -> std::io::Result<TcpStream> {
    let (mut attempts, mut addresses) = (FuturesUnordered::new(), addresses.iter());
    let mut fault = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    loop {
        attempts.extend(addresses.next().map(TcpStream::connect));
        tokio::select! {
            answer = attempts.next() => match answer {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(failed)) => fault = failed,
                None => return Err(fault),
            },
            () = sleep(CONNECTION_ATTEMPT_DELAY), if addresses.len() > 0 => {}
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the task that drives a connection ends with the connection")]
async fn http1<T>(upstream: u64, io: T, expires: Option<Instant>) -> Result<UpstreamConnection, String>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let received = Arc::new(AtomicU64::new(0));
    let io = TokioIo::new(ObservedIo::new(io, ByteCounter(received.clone())));
    // Requests are small: one buffer costs less than a list of them.
    let handshake = http1::Builder::new().max_header_size(MAX_HEAD).writev(false).handshake(io).await;
    let (sender, connection) = handshake.map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        if let Err(fault) = connection.await {
            tracing::debug!(fault = describe(&fault), "an upstream connection ended");
        }
    });
    Ok(UpstreamConnection::Http1(Http1 { sender, received, timer: ReusableTimer::default(), upstream, expires }))
}
