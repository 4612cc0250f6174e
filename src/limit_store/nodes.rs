//! The nodes of a cluster, connected to one by one.
//!
//! The client library connects to the nodes that a cluster announces, and drops the errors of those that it cannot use. What
//! is left is that no connection was found. This module finds the reason.

use futures_util::future::join_all;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, RedisResult, TlsCertificates, Value};

use crate::limit_store::connection::{CONNECT_WITHIN, reason};

/// How to connect to any node of a cluster.
pub(super) struct Nodes {
    seeds: Vec<ConnectionInfo>,
    certificates: TlsCertificates,
}

impl Nodes {
    /// The nodes of the cluster that `seeds` belong to.
    pub(super) fn new(seeds: Vec<ConnectionInfo>, certificates: TlsCertificates) -> Self {
        Self { seeds, certificates }
    }

    /// Connects to the configured nodes, and to the nodes that one of them announces. Returns why the first one that fails
    /// cannot be used, or `None` if all can.
    pub(super) async fn fault(&self) -> Option<String> {
        let announced = join_all(self.seeds.iter().map(|seed| self.announced_by(seed))).await;
        let mut faults = Vec::new();
        let mut nodes = None;
        for (seed, answer) in self.seeds.iter().zip(announced) {
            match answer {
                Ok(announced) => nodes = nodes.or(Some(announced)),
                Err(fault) => faults.push(format!("{}: {}", seed.addr(), reason(&fault))),
            }
        }
        let nodes = nodes.unwrap_or_default();
        let checks = join_all(nodes.iter().map(|node| self.ping(node))).await;
        let checks = nodes.iter().zip(checks);
        let refused = checks.filter_map(|(node, check)| Some(format!("{}: {}", node.addr(), reason(&check.err()?))));
        // A seed that fails matters less than an announced node: the library connects to the others.
        refused.chain(faults).next()
    }

    /// The primaries that `seed` announces.
    async fn announced_by(&self, seed: &ConnectionInfo) -> RedisResult<Vec<ConnectionInfo>> {
        let mut link = self.client(seed)?.get_multiplexed_async_connection_with_config(&config()).await?;
        let slots: Vec<Vec<Value>> = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut link).await?;
        let mut nodes: Vec<ConnectionInfo> = Vec::new();
        for node in slots.iter().filter_map(|range| primary(range, seed)) {
            if !nodes.iter().any(|known| known.addr() == node.addr()) {
                nodes.push(node);
            }
        }
        Ok(nodes)
    }

    async fn ping(&self, node: &ConnectionInfo) -> RedisResult<()> {
        let mut link = self.client(node)?.get_multiplexed_async_connection_with_config(&config()).await?;
        redis::cmd("PING").query_async(&mut link).await
    }

    fn client(&self, node: &ConnectionInfo) -> RedisResult<Client> {
        match node.addr() {
            ConnectionAddr::TcpTls { .. } => Client::build_with_tls(node.clone(), self.certificates.clone()),
            _ => Client::open(node.clone()),
        }
    }
}

fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_WITHIN)).set_response_timeout(Some(CONNECT_WITHIN))
}

/// The primary of a range of slots: first slot, last slot, the primary's host and port, then replicas. `seed` announced it,
/// and has the same user and password. An empty host is the one that was asked, and `?` is unknown.
fn primary(range: &[Value], seed: &ConnectionInfo) -> Option<ConnectionInfo> {
    let Value::Array(node) = range.get(2)? else { return None };
    let host: Option<String> = redis::from_redis_value_ref(node.first()?).ok()?;
    let port: u16 = redis::from_redis_value_ref(node.get(1)?).ok()?;
    let host = host.filter(|host| !host.is_empty());
    if host.as_deref() == Some("?") {
        return None;
    }
    let address = match seed.addr() {
        ConnectionAddr::TcpTls { host: asked, insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host: host.unwrap_or_else(|| asked.clone()),
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        ConnectionAddr::Tcp(asked, _) => ConnectionAddr::Tcp(host.unwrap_or_else(|| asked.clone()), port),
        _ => return None,
    };
    Some(seed.clone().set_addr(address))
}
