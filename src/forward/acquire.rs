//! Acquires a connection for a request: a stream of a shared one or one of its own, after a wait if necessary.

use std::pin::pin;

use tokio::time::{Instant, timeout};

use crate::forward::Upstream;
use crate::forward::connect::connect;
use crate::forward::failure::unreachable;
use crate::forward::pool::{self, UpstreamConnection};
use crate::refusal::Refusal;

impl Upstream {
    /// Returns a connection for a request. If the request failed on the connection numbered `failed`, it is a later one.
    pub(super) async fn connect(&self, failed: Option<u64>) -> Result<UpstreamConnection, Refusal> {
        match timeout(self.lookup_timeout + self.connect_timeout, self.connection(failed)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(fault)) => Err(unreachable(fault)),
            Err(_) => Err(unreachable("no connection within limits.upstream_lookup and limits.upstream_connect")),
        }
    }

    /// Returns a new connection, or a shared one that another request opened in the meantime. After a failure, no idle
    /// connection is tried, because the cause that ended one may have ended them all.
    async fn connection(&self, failed: Option<u64>) -> Result<UpstreamConnection, String> {
        let Some((turn, waiting)) = pool::connect_lock(self.id()).filter(|_| self.offers_http2) else {
            return self.own_connection(failed).await;
        };
        let _waits = waiting.count();
        let mut turn = pin!(turn.lock_owned());
        loop {
            let held = tokio::select! {
                held = &mut turn => Some(held),
                () = waiting.freed.notified() => None,
            };
            if let Some(made) = pool::acquire_newer(self.id(), failed, Instant::now()) {
                return Ok(made);
            }
            match held {
                // In the meantime, upstream may have turned out to speak only HTTP/1.1.
                Some(held) if pool::connect_lock(self.id()).is_some() => return connect(self, Some(held)).await,
                Some(_) => return self.own_connection(failed).await,
                None => {}
            }
        }
    }

    /// Returns a connection for one request alone.
    async fn own_connection(&self, failed: Option<u64>) -> Result<UpstreamConnection, String> {
        if let Some(idle) = pool::acquire_newer(self.id(), failed, Instant::now()) {
            return Ok(idle);
        }
        let made = connect(self, None).await?;
        if matches!(made, UpstreamConnection::Http2(_)) {
            pool::mark_http2(self.id());
        }
        Ok(made)
    }
}
