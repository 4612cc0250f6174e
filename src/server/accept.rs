//! Accept loop of a listener, with the limit of open connections.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch as channel;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::gateway::{CapacityPermit, Gateway, LifecycleState};
use crate::identify::ConnectionEnds;
use crate::server::HttpService;
use crate::server::connection::{ClientConnection, Guest};
use crate::server::listener::Bound;

/// How long accepting rests after it failed, for want of file descriptors mostly.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Callers that are told at once that there are too many connections; what comes beyond is closed without a word.
const MOST_TURNED_AWAY: usize = 32;

/// Time that connections have, when requests without a response are given up, to write the gateway's own responses, 500 ms.
const LAST_RESPONSES: Duration = Duration::from_millis(500);

/// Where connections of one thread come in.
pub(crate) struct Doorway<S, A> {
    service: S,
    /// Returns a permit for one more connection, unless there are too many.
    try_admit: A,
    gateway: Arc<Gateway>,
    /// How many are being turned away, at all doors.
    turned_away: Arc<AtomicUsize>,
    phases: channel::Receiver<LifecycleState>,
}

/// What is settled about a connection when it is accepted.
pub(super) struct Admission {
    /// Whether there is room for it; else it is told so.
    pub(super) is_welcome: bool,
    _place: CapacityPermit,
}

enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl<S: HttpService, A: Fn() -> Option<CapacityPermit>> Doorway<S, A> {
    pub(crate) fn new(
        service: S,
        try_admit: A,
        gateway: &Arc<Gateway>,
        turned_away: &Arc<AtomicUsize>,
        phases: channel::Receiver<LifecycleState>,
    ) -> Self {
        Self { service, try_admit, gateway: gateway.clone(), turned_away: turned_away.clone(), phases }
    }

    /// Accepts until the drain begins, then waits for the connections to end, or to be given up.
    pub(crate) async fn serve(self, socket: Bound) {
        let tasks = TaskTracker::new();
        match Door::new(socket) {
            Ok(door) => self.accept(&door, &tasks).await,
            Err(fault) => tracing::error!(%fault, "a listener cannot be used"),
        }
        tasks.close();
        let mut phases = self.phases.clone();
        tokio::select! {
            () = tasks.wait() => {}
            _ = phases.wait_for(|phase| *phase == LifecycleState::Stopped) => {
                // Each connection sees the phase by itself.
                let _ = timeout(LAST_RESPONSES, tasks.wait()).await;
            }
        }
    }

    async fn accept(&self, door: &Door, tasks: &TaskTracker) {
        let mut phases = self.phases.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = door.accept() => accepted,
                _ = phases.wait_for(|phase| *phase >= LifecycleState::Draining) => return,
            };
            match accepted {
                Ok((stream, ends)) => self.admit(stream, ends, tasks),
                // One that is gone already is nothing; anything else needs a rest, or it would spin.
                Err(fault) if fault.kind() == std::io::ErrorKind::ConnectionAborted => {}
                Err(fault) => {
                    tracing::warn!(%fault, "a connection could not be accepted");
                    sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    fn admit(&self, stream: Accepted, ends: ConnectionEnds, tasks: &TaskTracker) {
        // Decided before the next one is accepted: each holds a file descriptor, of which there may be few.
        let place = (self.try_admit)();
        let is_welcome = place.is_some();
        let Some(place) = place.or_else(|| CapacityPermit::try_acquire(&self.turned_away, MOST_TURNED_AWAY)) else {
            return;
        };
        let guest = Guest {
            service: self.service.clone(),
            gateway: self.gateway.clone(),
            phases: self.phases.clone(),
            connection: ClientConnection::new(ends, tasks.clone(), self.phases.clone()),
            admission: Admission { is_welcome, _place: place },
        };
        match stream {
            Accepted::Tcp(stream) => drop(tasks.spawn(guest.serve(stream))),
            Accepted::Unix(stream) => drop(tasks.spawn(guest.serve(stream))),
        }
    }
}

impl Door {
    fn new(socket: Bound) -> std::io::Result<Self> {
        Ok(match socket {
            Bound::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            Bound::Unix(listener) => Self::Unix(UnixListener::from_std(listener)?),
        })
    }

    async fn accept(&self) -> std::io::Result<(Accepted, ConnectionEnds)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                let ends = ConnectionEnds { peer: peer.ip(), local: Some(stream.local_addr()?.ip()) };
                Ok((Accepted::Tcp(stream), ends))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let ends = ConnectionEnds { peer: IpAddr::V4(Ipv4Addr::LOCALHOST), local: None };
                Ok((Accepted::Unix(stream), ends))
            }
        }
    }
}
