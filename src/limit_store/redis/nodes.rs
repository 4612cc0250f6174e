//! Diagnosis of a cluster: connects to its nodes one by one.
//!
//! The client library connects to the nodes that a cluster announces, and drops the errors of the nodes that it cannot use.
//! It then reports only that it has no connection. This module finds the reason.

use futures_util::future::join_all;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, RedisResult, TlsCertificates, Value};
use tokio::time::timeout;

use crate::limit_store::redis::connection::{CONNECT_TIMEOUT, reason};
use crate::untrusted::sanitize;

/// Seed nodes of a cluster, and the settings to connect to any node.
pub(super) struct Nodes {
    seeds: Vec<ConnectionInfo>,
    certificates: TlsCertificates,
}

impl Nodes {
    /// Creates a diagnosis of the cluster that `seeds` belong to.
    pub(super) fn new(seeds: Vec<ConnectionInfo>, certificates: TlsCertificates) -> Self {
        Self { seeds, certificates }
    }

    /// Connects to the configured nodes, then to the nodes that one of them announces. Returns why the first one that fails
    /// cannot be used. A node that does not reply in time has no reason. The whole takes at most [`CONNECT_TIMEOUT`].
    pub(super) async fn fault(&self) -> Option<String> {
        let announced = join_all(self.seeds.iter().map(|seed| in_time(self.announced_by(seed)))).await;
        let mut faults = Vec::new();
        let mut nodes = None;
        for (seed, reply) in self.seeds.iter().zip(announced) {
            match reply {
                Some(Ok(announced)) => nodes = nodes.or(Some(announced)),
                Some(Err(fault)) => faults.push(format!("{}: {}", sanitize(seed.addr()), reason(&fault))),
                None => {}
            }
        }
        let nodes = nodes.unwrap_or_default();
        let checks = join_all(nodes.iter().map(|node| in_time(self.ping(node)))).await;
        let refused = nodes.iter().zip(checks).filter_map(|(node, check)| {
            // The node's address comes from the server, and may be any text.
            Some(format!("{}: {}", sanitize(node.addr()), reason(&check?.err()?)))
        });
        // A seed that fails matters less than an announced node: the library connects to the others.
        refused.chain(faults).next()
    }

    /// Returns the primaries that `seed` announces.
    async fn announced_by(&self, seed: &ConnectionInfo) -> RedisResult<Vec<ConnectionInfo>> {
        let mut connection = self.client(seed)?.get_multiplexed_async_connection_with_config(&config()).await?;
        let slots: Vec<Vec<Value>> = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await?;
        let mut nodes: Vec<ConnectionInfo> = Vec::new();
        for node in slots.iter().filter_map(|range| primary(range, seed)) {
            if !nodes.iter().any(|known| known.addr() == node.addr()) {
                nodes.push(node);
            }
        }
        Ok(nodes)
    }

    async fn ping(&self, node: &ConnectionInfo) -> RedisResult<()> {
        let mut connection = self.client(node)?.get_multiplexed_async_connection_with_config(&config()).await?;
        redis::cmd("PING").query_async(&mut connection).await
    }

    fn client(&self, node: &ConnectionInfo) -> RedisResult<Client> {
        match node.addr() {
            ConnectionAddr::TcpTls { .. } => Client::build_with_tls(node.clone(), self.certificates.clone()),
            _ => Client::open(node.clone()),
        }
    }
}

/// Waits for one of the two steps. Returns `None` after half of [`CONNECT_TIMEOUT`].
async fn in_time<T>(step: impl Future<Output = RedisResult<T>>) -> Option<RedisResult<T>> {
    timeout(CONNECT_TIMEOUT / 2, step).await.ok()
}

/// Turns off the library's own timeouts, because [`in_time`] covers them.
fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None)
}

/// Returns the primary of a range of slots. A range has its first slot, its last slot, host and port of the primary, and
/// the replicas. `seed` announced it, and the primary has the same user and password. An empty host means that of the
/// seed, and `?` means an unknown host.
fn primary(range: &[Value], seed: &ConnectionInfo) -> Option<ConnectionInfo> {
    let Value::Array(node) = range.get(2)? else { return None };
    let host: Option<String> = redis::from_redis_value_ref(node.first()?).ok()?;
    let port: u16 = redis::from_redis_value_ref(node.get(1)?).ok()?;
    let host = host.filter(|host| !host.is_empty());
    if host.as_deref() == Some("?") {
        return None;
    }
    let address = match seed.addr() {
        ConnectionAddr::TcpTls { host: seed_host, insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host: host.unwrap_or_else(|| seed_host.clone()),
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        ConnectionAddr::Tcp(seed_host, _) => ConnectionAddr::Tcp(host.unwrap_or_else(|| seed_host.clone()), port),
        _ => return None,
    };
    Some(seed.clone().set_addr(address))
}
