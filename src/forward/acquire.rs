//! A connection for a request: a stream of a shared one, one of the request's own, or the wait for either.

use std::pin::pin;

use tokio::time::{Instant, timeout};

use crate::forward::Upstream;
use crate::forward::connect::connect;
use crate::forward::failure::unreachable;
use crate::forward::pool::{self, UpstreamConnection};
use crate::refusal::Refusal;

impl Upstream {
    /// A connection for a request, opened after the one numbered `failed` if it failed on one before.
    pub(super) async fn connect(&self, failed: Option<u64>) -> Result<UpstreamConnection, Refusal> {
        match timeout(self.lookup_timeout + self.connect_timeout, self.connection(failed)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(fault)) => Err(unreachable(fault)),
            Err(_) => Err(unreachable("no connection within limits.upstream_lookup and limits.upstream_connect")),
        }
    }

    /// A new connection, or one that a request before has made for all while this one waited for it. After a failure, idle
    /// connections are not tried one after the other: what ended the first may have ended them all.
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
                // Meanwhile it may have turned out that each needs its own.
                Some(held) if pool::connect_lock(self.id()).is_some() => return connect(self, Some(held)).await,
                Some(_) => return self.own_connection(failed).await,
                None => {}
            }
        }
    }

    /// A connection for one request.
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
