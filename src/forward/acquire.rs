//! A connection for a request: a stream of a shared one, one of the request's own, or the wait for either.

use std::pin::pin;

use tokio::time::{Instant, timeout};

use crate::forward::Upstream;
use crate::forward::connect::connect;
use crate::forward::failure::not_reached;
use crate::forward::pool::{self, Connection};
use crate::refusal::Refusal;

impl Upstream {
    /// A connection for a request, opened after the one numbered `failed` if it failed on one before.
    pub(super) async fn connect(&self, failed: Option<u64>) -> Result<Connection, Refusal> {
        match timeout(self.lookup_within + self.connect_within, self.connection(failed)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(fault)) => Err(not_reached(fault)),
            Err(_) => Err(not_reached("no connection within limits.upstream_lookup and limits.upstream_connect")),
        }
    }

    /// A new connection, or one that a request before has made for all while this one waited for it. After a failure, idle
    /// connections are not tried one after the other: what ended the first may have ended them all.
    async fn connection(&self, failed: Option<u64>) -> Result<Connection, String> {
        let Some((turn, waiting)) = pool::turn(self.id()).filter(|_| self.offers_http2) else {
            return self.own_connection(failed).await;
        };
        let _waits = waiting.count();
        let mut turn = pin!(turn.lock_owned());
        loop {
            let held = tokio::select! {
                held = &mut turn => Some(held),
                () = waiting.freed.notified() => None,
            };
            if let Some(made) = pool::take_newer(self.id(), failed, Instant::now()) {
                return Ok(made);
            }
            match held {
                // Meanwhile it may have turned out that each needs its own.
                Some(held) if pool::turn(self.id()).is_some() => return connect(self, Some(held)).await,
                Some(_) => return self.own_connection(failed).await,
                None => {}
            }
        }
    }

    /// A connection for one request.
    async fn own_connection(&self, failed: Option<u64>) -> Result<Connection, String> {
        if let Some(idle) = pool::take_newer(self.id(), failed, Instant::now()) {
            return Ok(idle);
        }
        let made = connect(self, None).await?;
        if matches!(made, Connection::Http2(_)) {
            pool::speaks_http2(self.id());
        }
        Ok(made)
    }
}
