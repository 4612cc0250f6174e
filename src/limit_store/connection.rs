//! Connection to the limit store: one server, the primary that sentinels name, or a cluster.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _};
use redis::{Pipeline, RedisError, RedisFuture, RedisResult, TlsCertificates, TlsMode, Value};
use secrecy::zeroize::Zeroizing;
use tokio::time::timeout;

use crate::limit_store::nodes::Nodes;
use crate::secret::Secret;
use crate::untrusted::sanitize;

/// Connecting, TLS and finding the primary included, takes no longer.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// `limit_store.kind`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The address is the server's.
    Single,
    /// The addresses are those of some nodes of a cluster.
    Cluster,
    /// The addresses are sentinels', and this is the name of what they watch.
    Sentinel(String),
}

/// Where the store is.
pub struct Address {
    current: Mutex<Current>,
    servers: Servers,
    /// Where its URLs are read again before each connection, so that a rotated password is used.
    source: Option<Source>,
}

/// What URLs name beside user and password.
struct Servers {
    /// Hosts and ports, for messages.
    shown: String,
    /// Schemes, hosts, ports and databases: what can change only by a restart.
    identity: String,
}

/// The way in by the URLs that were read last.
struct Current {
    door: Arc<Door>,
    /// Tells the URLs from others.
    fingerprint: String,
}

/// A file that holds the URLs, and what else an address is made from.
struct Source {
    file: PathBuf,
    kind: Kind,
    ca: Option<Vec<u8>>,
    within: Duration,
}

enum Door {
    Single(Box<Client>),
    Cluster(Box<ClusterClient>, Nodes),
    Sentinel(Box<tokio::sync::Mutex<SentinelClient>>),
}

/// An open connection; clones share it.
#[derive(Clone)]
pub struct Link(Wire);

#[derive(Clone)]
enum Wire {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Address {
    /// Reads `urls`, which are separated by commas, and which `file` holds, if it is named. `ca_file` is the only authority to
    /// trust, instead of the public ones.
    ///
    /// # Errors
    /// What cannot be used, in words that hold no part of the URLs but hosts and ports.
    pub fn new(
        urls: &Secret,
        file: Option<&Path>,
        kind: &Kind,
        ca_file: Option<&Path>,
        within: Duration,
    ) -> Result<Self, String> {
        let ca =
            ca_file.map(std::fs::read).transpose().map_err(|e| format!("limit_store.ca_file cannot be read: {e}"))?;
        let read = Self::read(urls, kind, ca.as_deref(), within);
        let (door, servers) = read.map_err(|fault| format!("limit_store.redis cannot be used: {fault}"))?;
        let current = Mutex::new(Current { door: Arc::new(door), fingerprint: urls.fingerprint() });
        let source = file.map(|file| Source { file: file.to_owned(), kind: kind.clone(), ca, within });
        Ok(Self { current, servers, source })
    }

    /// The way in, with the password that the file has now. A file that cannot be used, or names other servers, changes
    /// nothing: other servers are in force after a restart.
    fn door(&self) -> Arc<Door> {
        let mut current = self.current.lock();
        let urls = self.source.as_ref().and_then(|source| {
            let text = Zeroizing::new(std::fs::read_to_string(&source.file).ok()?);
            Secret::new(&text).ok().map(|urls| (urls, source))
        });
        if let Some((urls, source)) = urls.filter(|(urls, _)| urls.fingerprint() != current.fingerprint) {
            match Self::read(&urls, &source.kind, source.ca.as_deref(), source.within) {
                Ok((door, servers)) if servers.identity == self.servers.identity => {
                    *current = Current { door: Arc::new(door), fingerprint: urls.fingerprint() };
                    tracing::info!(store = %self, "user and password of the limit store were read again");
                }
                Ok(_) => tracing::warn!(store = %self, "restart required to use other addresses of limit_store.redis"),
                Err(fault) => tracing::warn!(store = %self, fault, "the file of limit_store.redis cannot be used"),
            }
        }
        current.door.clone()
    }

    /// Returns schemes, hosts, ports and databases of `urls`, if they can be used.
    pub fn identity(urls: &Secret, kind: &Kind) -> Option<String> {
        Self::read(urls, kind, None, crate::limit_store::WITHIN).ok().map(|(_, servers)| servers.identity)
    }

    /// Whether [`Self::new`] will take the addresses.
    ///
    /// # Errors
    /// Why not, in such words.
    pub fn check(urls: &Secret, kind: &Kind) -> Result<(), String> {
        Self::read(urls, kind, None, crate::limit_store::WITHIN).map(drop)
    }

    /// Returns the way in, and the servers.
    fn read(urls: &Secret, kind: &Kind, ca: Option<&[u8]>, within: Duration) -> Result<(Door, Servers), String> {
        let certificates = || TlsCertificates { client_tls: None, root_cert: ca.map(<[u8]>::to_vec) };
        let nodes = urls.expose(|urls| urls.split(',').map(|url| node(url.trim())).collect::<Result<Vec<_>, _>>())?;
        let list = |show: fn(&ConnectionInfo) -> String| nodes.iter().map(show).collect::<Vec<_>>().join(", ");
        let servers = Servers { shown: list(|node| node.addr().to_string()), identity: list(identity) };
        let [first, ..] = nodes.as_slice() else { return Err("it names no address".to_owned()) };
        if let Some(differs) = nodes.iter().find_map(|node| differs(node, first, kind)) {
            return Err(format!("its addresses differ in {differs}"));
        }
        let door = match kind {
            Kind::Single if nodes.len() > 1 => {
                Err("it names several addresses; say of what in `limit_store.kind`".to_owned())
            }
            Kind::Single if is_tls(first.addr()) => {
                said(Client::build_with_tls(first.clone(), certificates())).map(|client| Door::Single(Box::new(client)))
            }
            Kind::Single => said(Client::open(first.clone())).map(|client| Door::Single(Box::new(client))),
            Kind::Cluster => {
                let mut builder = ClusterClientBuilder::new(nodes.clone()).retries(0).tcp_settings(tcp());
                builder = builder.connection_timeout(CONNECT_WITHIN).response_timeout(within * 2);
                if is_tls(first.addr()) {
                    builder = builder.certs(certificates());
                }
                said(builder.build()).map(|client| Door::Cluster(Box::new(client), Nodes::new(nodes, certificates())))
            }
            Kind::Sentinel(name) => sentinel(&nodes, first, name, certificates()),
        }?;
        Ok((door, servers))
    }

    /// Opens a connection that answers.
    ///
    /// # Errors
    /// Why there is none, and what to do where that can be told.
    pub(super) async fn connect(&self) -> Result<Link, String> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_response_timeout(Some(CONNECT_WITHIN));
        let door = self.door();
        let connect = async {
            let mut link = match &*door {
                Door::Single(client) => client.get_multiplexed_async_connection_with_config(&config).await?,
                Door::Cluster(client, _) => return cluster(client).await,
                Door::Sentinel(client) => client.lock().await.get_async_connection_with_config(&config).await?,
            };
            redis::cmd("PING").query_async::<()>(&mut link).await?;
            Ok(Link(Wire::One(link)))
        };
        let connected = match timeout(CONNECT_WITHIN, connect).await {
            Ok(connected) => connected,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        };
        match (connected, &*door) {
            (Ok(link), _) => Ok(link),
            (Err(fault), Door::Cluster(_, nodes)) => Err(nodes.fault().await.unwrap_or_else(|| reason(&fault))),
            (Err(fault), _) => Err(reason(&fault)),
        }
    }
}

/// Connects to a cluster. The library calls it a connection, too, if it cannot use any node that the cluster announces.
async fn cluster(client: &ClusterClient) -> RedisResult<Link> {
    let mut link = client.get_async_connection().await?;
    let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
    link.route_command(redis::cmd("PING"), all).await?;
    Ok(Link(Wire::Cluster(link)))
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.servers.shown)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.servers.shown)
    }
}

fn sentinel(
    nodes: &[ConnectionInfo],
    first: &ConnectionInfo,
    name: &str,
    certificates: TlsCertificates,
) -> Result<Door, String> {
    let addresses = nodes.iter().map(|node| node.addr().clone());
    let kind = SentinelServerType::Master;
    let mut builder = said(SentinelClientBuilder::new(addresses, name, kind))?
        .set_client_to_redis_tcp_settings(tcp())
        .set_client_to_redis_db(first.redis_settings().db());
    if let Some(user) = first.redis_settings().username() {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = first.redis_settings().password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if is_tls(first.addr()) {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_certificates(certificates);
    }
    Ok(Door::Sentinel(Box::new(tokio::sync::Mutex::new(said(builder.build())?))))
}

fn node(url: &str) -> Result<ConnectionInfo, String> {
    if let Some(fault) = fault_of(url) {
        return Err(fault.to_owned());
    }
    said(url.into_connection_info()).map(|node| node.set_tcp_settings(tcp()))
}

/// What is wrong with an address. The client's own words can repeat it.
fn fault_of(address: &str) -> Option<&'static str> {
    let after_scheme = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or_default();
    let after_host = authority.rsplit(['@', ']']).next().unwrap_or_default();
    let port = after_host.split_once(':').map(|(_, port)| port.parse::<u16>());
    let Some(url) = redis::parse_redis_url(address) else {
        let no_port = port.is_some_and(|port| port.is_err());
        return Some(if no_port { "its port is no number from 1 to 65535" } else { "it is no URL" });
    };
    let database = url.path().trim_matches('/');
    if url.host_str().is_none_or(str::is_empty) {
        Some("it names no host")
    } else if url.port() == Some(0) {
        Some("its port is no number from 1 to 65535")
    } else if !database.bytes().all(|b| b.is_ascii_digit()) || database.len() > 9 {
        Some("its database is no number")
    } else if url.fragment().is_some() {
        Some("it takes no fragment")
    } else {
        None
    }
}

/// What nodes do not have in common that one connection goes by. Of sentinels, the first tells user, password and database.
fn differs(one: &ConnectionInfo, other: &ConnectionInfo, kind: &Kind) -> Option<&'static str> {
    let (a, b) = (one.redis_settings(), other.redis_settings());
    if is_tls(one.addr()) != is_tls(other.addr()) {
        return Some("whether TLS is spoken");
    }
    let user = a.username() != b.username() || a.password() != b.password();
    match kind {
        Kind::Cluster if user => Some("user or password"),
        Kind::Cluster if a.db() != b.db() => Some("their database"),
        Kind::Single | Kind::Cluster | Kind::Sentinel(_) => None,
    }
}

/// Returns what a URL names beside user and password.
fn identity(node: &ConnectionInfo) -> String {
    let scheme = if is_tls(node.addr()) { "rediss" } else { "redis" };
    format!("{scheme}://{}/{}", node.addr(), node.redis_settings().db())
}

/// A packet that waits for the acknowledgement of the one before costs more than all else of a call.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn is_tls(address: &ConnectionAddr) -> bool {
    matches!(address, ConnectionAddr::TcpTls { .. })
}

/// The kind of an error, without its details: they can repeat what stands in the URL.
fn said<T>(result: RedisResult<T>) -> Result<T, String> {
    result.map_err(|fault| fault.category().to_owned())
}

/// Why no connection came about, and what to do where that can be told. The server's words are cleaned.
pub(super) fn reason(fault: &RedisError) -> String {
    let said = sanitize(fault);
    // A bad signature is that of an authority of the same name with another key.
    if ["UnknownIssuer", "BadSignature"].iter().any(|word| said.contains(word)) {
        return format!("{said}; its certificate is by an authority unknown here: name that in limit_store.ca_file");
    }
    if said.contains("not valid for name") {
        return format!("{said}; the store announces an address that its certificate lacks: see docs/sharing.md");
    }
    if fault.kind() == ErrorKind::AuthenticationFailed {
        return format!("{said}; user and password stand in the URL of limit_store.redis");
    }
    said
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match &mut self.0 {
            Wire::One(link) => link.req_packed_command(cmd),
            Wire::Cluster(link) => link.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match &mut self.0 {
            Wire::One(link) => link.req_packed_commands(cmd, offset, count),
            Wire::Cluster(link) => link.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match &self.0 {
            Wire::One(link) => link.get_db(),
            Wire::Cluster(link) => link.get_db(),
        }
    }
}
