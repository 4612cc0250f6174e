//! Accepts connections, speaks TLS and both versions of HTTP, and closes connections to simulate an outage.

use std::future::{Future, pending};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::answer::Answer;
use super::service;
use super::state::State;

/// Accepts connections until the task is cancelled.
pub(super) async fn serve(state: Arc<State>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                tokio::spawn(connection(state.clone(), stream, peer, tls.clone()));
            }
            // The usual cause is too many open files.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn connection(state: Arc<State>, stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>) {
    let mut down = state.down.subscribe();
    tokio::select! {
        biased;
        _ = down.wait_for(|down| *down) => {}
        () = speak(&state, stream, peer.ip(), tls) => {}
    }
}

async fn speak(state: &Arc<State>, stream: TcpStream, peer: IpAddr, tls: Option<TlsAcceptor>) {
    let patience = state.options.keep_alive;
    match tls {
        None => {
            if let Ok(http2) = timeout(patience, begins_http2(&stream)).await {
                http(state, stream, peer, http2).await;
            }
        }
        Some(acceptor) => {
            if let Ok(Ok(stream)) = timeout(patience, acceptor.accept(stream)).await {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                http(state, stream, peer, http2).await;
            }
        }
    }
}

/// Returns whether an unencrypted connection starts with the preface of HTTP/2 (RFC 9113 §3.4). No method starts with `PRI`.
async fn begins_http2(stream: &TcpStream) -> bool {
    let mut first = [0; 3];
    loop {
        match stream.peek(&mut first).await {
            Ok(3) => return first == *b"PRI",
            Ok(1..3) if first.starts_with(b"P") => sleep(Duration::from_millis(1)).await,
            _ => return false,
        }
    }
}

async fn http<T>(state: &Arc<State>, stream: T, peer: IpAddr, http2: bool)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let cut = Arc::new(Notify::new());
    let answering = service_fn(|request| answer(state.clone(), peer, request, cut.clone()));
    let (io, keep_alive) = (TokioIo::new(stream), state.options.keep_alive);
    if http2 {
        let served = http2::Builder::new(TokioExecutor::new()).timer(TokioTimer::new()).serve_connection(io, answering);
        until_cut(served, &cut).await;
    } else {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(keep_alive);
        until_cut(builder.serve_connection(io, answering), &cut).await;
    }
}

/// Drives a connection until it ends, or until one of its responses is to be lost.
async fn until_cut(served: impl Future<Output = hyper::Result<()>>, cut: &Notify) {
    tokio::select! {
        biased;
        () = cut.notified() => {}
        // Cal.com ignores how a client ends a connection.
        _ = served => {}
    }
}

async fn answer(
    state: Arc<State>,
    peer: IpAddr,
    request: Request<Incoming>,
    cut: Arc<Notify>,
) -> hyper::Result<Answer> {
    if let Ok(answer) = service::answer(state, peer, request).await {
        return Ok(answer);
    }
    cut.notify_one();
    pending().await
}
