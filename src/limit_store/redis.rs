//! Limit store in Redis or Valkey: Lua scripts decide on the server, atomically and by the server's clock.

pub mod connection;
mod nodes;
pub mod scripts;

use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use redis::RedisError;

use crate::limit_store::backlog::UsageReport;
use crate::limit_store::redis::connection::{RedisAddress, RedisConnection, Topology};
use crate::limit_store::redis::scripts::Scripts;
use crate::limit_store::{
    AcquireRequest, Acquired, CallError, CallFuture, Charge, HeartbeatReply, Limit, LimitStore, Member,
    ReplayedRequest, RequestOutcome,
};
use crate::ratelimit::parts::Part;
use crate::secret::Secret;

/// Limit store in one server, in the primary that sentinels name, or in a cluster.
#[derive(Debug)]
pub struct RedisLimitStore {
    address: RedisAddress,
    scripts: Scripts,
    connection: Mutex<Option<RedisConnection>>,
}

impl RedisLimitStore {
    /// Creates a store that has not connected yet. `file` is the file that holds `urls`, if they come from a file.
    ///
    /// # Errors
    /// Reason why the addresses cannot be used.
    pub fn new(
        urls: &Secret,
        file: Option<&Path>,
        topology: &Topology,
        ca_file: Option<&Path>,
        timeout: Duration,
    ) -> Result<Self, String> {
        let address = RedisAddress::new(urls, file, topology, ca_file, timeout)?;
        Ok(Self { address, scripts: Scripts::default(), connection: Mutex::default() })
    }

    /// Returns the connection. Its clones share one socket.
    fn connection(&self) -> Result<RedisConnection, CallError> {
        self.connection.lock().clone().ok_or(CallError::NotConnected)
    }
}

/// Returns the kind of an error. Its details could repeat a secret.
#[expect(clippy::needless_pass_by_value, reason = "an argument of `map_err`")]
fn failed(fault: RedisError) -> CallError {
    CallError::Failed(fault.category().to_owned())
}

impl LimitStore for RedisLimitStore {
    fn servers(&self) -> &str {
        self.address.servers()
    }

    fn connect(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async {
            let connection = self.address.connect().await?;
            *self.connection.lock() = Some(connection);
            Ok(())
        })
    }

    fn diagnose(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(self.address.diagnose())
    }

    fn disconnect(&self) {
        *self.connection.lock() = None;
    }

    fn acquire<'a>(
        &'a self,
        limit: Limit<'a>,
        member: Member<'a>,
        request: AcquireRequest,
        charge: Option<Charge<'a>>,
    ) -> CallFuture<'a, (Acquired, Part)> {
        Box::pin(async move {
            let mut connection = self.connection()?;
            self.scripts.acquire(&mut connection, limit, member, request, charge).await.map_err(failed)
        })
    }

    fn charge<'a>(&'a self, charge: Charge<'a>) -> CallFuture<'a, Result<Duration, Duration>> {
        Box::pin(async move { self.scripts.charge(&mut self.connection()?, charge, None).await.map_err(failed) })
    }

    fn settle<'a>(
        &'a self,
        limit: Limit<'a>,
        gateway: &'a str,
        request: u64,
        outcome: RequestOutcome,
    ) -> CallFuture<'a, ()> {
        Box::pin(async move {
            let mut connection = self.connection()?;
            self.scripts.settle(&mut connection, limit, gateway, request, outcome).await.map(drop).map_err(failed)
        })
    }

    fn heartbeat<'a>(&'a self, limit: Limit<'a>, member: Member<'a>, epoch: u64) -> CallFuture<'a, HeartbeatReply> {
        Box::pin(
            async move { self.scripts.heartbeat(&mut self.connection()?, limit, member, epoch).await.map_err(failed) },
        )
    }

    fn join<'a>(
        &'a self,
        limit: Limit<'a>,
        member: Member<'a>,
        joins: bool,
        replayed: &'a [ReplayedRequest],
    ) -> CallFuture<'a, u32> {
        Box::pin(async move {
            self.scripts.join(&mut self.connection()?, limit, member, joins, replayed).await.map_err(failed)
        })
    }

    fn leave<'a>(&'a self, keys: &'a str, member: Member<'a>) -> CallFuture<'a, ()> {
        Box::pin(async move { self.scripts.leave(&mut self.connection()?, keys, member).await.map_err(failed) })
    }

    fn report<'a>(&'a self, usage: &'a UsageReport) -> CallFuture<'a, ()> {
        Box::pin(async move { self.scripts.report(&mut self.connection()?, usage, None).await.map_err(failed) })
    }
}
