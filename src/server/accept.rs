//! Accept loop of a listener, with the limit of open connections.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::gateway::{CapacityPermit, Gateway, LifecycleState};
use crate::identify::ConnectionEnds;
use crate::server::HttpService;
use crate::server::connection::{ClientConnection, ConnectionDriver};
use crate::server::listener::BoundSocket;

/// Pause after a failed accept, 50 ms. The usual reason is a lack of file descriptors, which a retry does not cure.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Maximum concurrent connections that receive a 503 because the connection limit is reached, 32. Further connections are
/// closed without a response.
const MAX_OVER_LIMIT_REPLIES: usize = 32;

/// Time that connections have at the end of the drain to write the responses of requests that are given up, 500 ms.
const FINAL_RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Accept loop of one thread.
pub(crate) struct AcceptLoop<S, A> {
    service: S,
    /// Returns a permit for one more connection, unless there are too many.
    try_admit: A,
    gateway: Arc<Gateway>,
    /// Connections that are receiving a 503, counted over all listeners.
    over_limit_replies: Arc<AtomicUsize>,
    lifecycle: watch::Receiver<LifecycleState>,
}

/// The decision about a connection when it is accepted.
pub(super) struct Admission {
    /// Whether the connection is within the limit. Otherwise it receives a 503.
    pub(super) is_within_limit: bool,
    _permit: CapacityPermit,
}

enum AcceptedStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

enum AnyListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl<S: HttpService, A: Fn() -> Option<CapacityPermit>> AcceptLoop<S, A> {
    pub(crate) fn new(
        service: S,
        try_admit: A,
        gateway: &Arc<Gateway>,
        over_limit_replies: &Arc<AtomicUsize>,
        lifecycle: watch::Receiver<LifecycleState>,
    ) -> Self {
        Self { service, try_admit, gateway: gateway.clone(), over_limit_replies: over_limit_replies.clone(), lifecycle }
    }

    /// Accepts connections until the drain begins. Then waits until they have ended, or until the drain is over.
    pub(crate) async fn serve(self, socket: BoundSocket) {
        let tasks = TaskTracker::new();
        match AnyListener::new(socket) {
            Ok(listener) => self.accept(&listener, &tasks).await,
            Err(fault) => tracing::error!(%fault, "cannot use a listener"),
        }
        tasks.close();
        let mut lifecycle = self.lifecycle.clone();
        tokio::select! {
            () = tasks.wait() => {}
            _ = lifecycle.wait_for(|state| *state == LifecycleState::Stopped) => {
                // Each connection watches the lifecycle itself.
                let _ = timeout(FINAL_RESPONSE_TIMEOUT, tasks.wait()).await;
            }
        }
    }

    async fn accept(&self, listener: &AnyListener, tasks: &TaskTracker) {
        let mut lifecycle = self.lifecycle.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                _ = lifecycle.wait_for(|state| *state >= LifecycleState::Draining) => return,
            };
            match accepted {
                Ok((stream, ends)) => self.admit(stream, ends, tasks),
                // The client has left already.
                Err(fault) if fault.kind() == std::io::ErrorKind::ConnectionAborted => {}
                Err(fault) => {
                    tracing::warn!(%fault, "cannot accept a connection");
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    fn admit(&self, stream: AcceptedStream, ends: ConnectionEnds, tasks: &TaskTracker) {
        // The loop decides before it accepts the next connection, because each open socket takes a file descriptor.
        let permit = (self.try_admit)();
        let is_within_limit = permit.is_some();
        let Some(permit) =
            permit.or_else(|| CapacityPermit::try_acquire(&self.over_limit_replies, MAX_OVER_LIMIT_REPLIES))
        else {
            return;
        };
        let driver = ConnectionDriver {
            service: self.service.clone(),
            gateway: self.gateway.clone(),
            lifecycle: self.lifecycle.clone(),
            connection: ClientConnection::new(ends, tasks.clone(), self.lifecycle.clone()),
            admission: Admission { is_within_limit, _permit: permit },
        };
        match stream {
            AcceptedStream::Tcp(stream) => drop(tasks.spawn(driver.serve(stream))),
            AcceptedStream::Unix(stream) => drop(tasks.spawn(driver.serve(stream))),
        }
    }
}

impl AnyListener {
    fn new(socket: BoundSocket) -> std::io::Result<Self> {
        Ok(match socket {
            BoundSocket::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            BoundSocket::Unix(listener) => Self::Unix(UnixListener::from_std(listener)?),
        })
    }

    async fn accept(&self) -> std::io::Result<(AcceptedStream, ConnectionEnds)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                let ends = ConnectionEnds { peer: peer.ip(), local: Some(stream.local_addr()?.ip()) };
                Ok((AcceptedStream::Tcp(stream), ends))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let ends = ConnectionEnds { peer: IpAddr::V4(Ipv4Addr::LOCALHOST), local: None };
                Ok((AcceptedStream::Unix(stream), ends))
            }
        }
    }
}
