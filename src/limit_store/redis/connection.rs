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

use crate::limit_store::CALL_TIMEOUT;
use crate::limit_store::redis::nodes::Nodes;
use crate::secret::Secret;
use crate::untrusted::sanitize;

/// Longest time to open a connection. That includes TLS, and the question to a sentinel or to a cluster's node.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Arrangement of the servers: `limit_store.kind` and `limit_store.sentinel`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// The URL is that of one server.
    Single,
    /// The URLs are those of some nodes of a cluster.
    Cluster,
    /// The URLs are those of sentinels, which know the primary by this name.
    Sentinel(String),
}

/// Address of the store.
pub struct RedisAddress {
    current: Mutex<CurrentClient>,
    servers: Servers,
    /// File with the URLs. It is read again before each connection, so that a rotated password takes effect.
    source: Option<Source>,
}

/// Parts of the URLs other than user and password.
struct Servers {
    /// Hosts and ports, for messages.
    shown: String,
    /// Schemes, hosts, ports and databases. They change only at a restart.
    identity: String,
}

/// Client of the URLs that were read last.
struct CurrentClient {
    client: Arc<RedisClient>,
    /// Fingerprint of the URLs.
    fingerprint: String,
}

/// File with the URLs, and the other settings of the address.
struct Source {
    file: PathBuf,
    topology: Topology,
    ca: Option<Vec<u8>>,
    timeout: Duration,
}

enum RedisClient {
    Single(Box<Client>),
    Cluster(Box<ClusterClient>, Nodes),
    Sentinel(Box<tokio::sync::Mutex<SentinelClient>>),
}

/// Open connection. Its clones share one socket.
#[derive(Clone)]
pub struct RedisConnection(Inner);

#[derive(Clone)]
enum Inner {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl RedisAddress {
    /// Reads `urls`, separated by commas. `file` is the file that holds them, if there is one. `ca_file` is the only
    /// authority to trust, instead of the public ones.
    ///
    /// # Errors
    /// Reason why they cannot be used. It names hosts and ports, and no other part of the URLs.
    pub fn new(
        urls: &Secret,
        file: Option<&Path>,
        topology: &Topology,
        ca_file: Option<&Path>,
        timeout: Duration,
    ) -> Result<Self, String> {
        let ca =
            ca_file.map(std::fs::read).transpose().map_err(|e| format!("limit_store.ca_file cannot be read: {e}"))?;
        let read = Self::read(urls, topology, ca.as_deref(), timeout);
        let (client, servers) = read.map_err(|fault| format!("limit_store.redis cannot be used: {fault}"))?;
        let current = Mutex::new(CurrentClient { client: Arc::new(client), fingerprint: urls.fingerprint() });
        let source = file.map(|file| Source { file: file.to_owned(), topology: topology.clone(), ca, timeout });
        Ok(Self { current, servers, source })
    }

    /// Returns hosts and ports, for messages.
    pub(super) fn servers(&self) -> &str {
        &self.servers.shown
    }

    /// Returns the client, with the password that the file has now. A file that cannot be used changes nothing. Other servers
    /// take effect only at a restart.
    fn client(&self) -> Arc<RedisClient> {
        let mut current = self.current.lock();
        let urls = self.source.as_ref().and_then(|source| {
            let text = Zeroizing::new(std::fs::read_to_string(&source.file).ok()?);
            Secret::new(&text).ok().map(|urls| (urls, source))
        });
        if let Some((urls, source)) = urls.filter(|(urls, _)| urls.fingerprint() != current.fingerprint) {
            let store = self.servers();
            match Self::read(&urls, &source.topology, source.ca.as_deref(), source.timeout) {
                Ok((client, servers)) if servers.identity == self.servers.identity => {
                    *current = CurrentClient { client: Arc::new(client), fingerprint: urls.fingerprint() };
                    tracing::info!(store, "user and password of the limit store were read again");
                }
                Ok(_) => tracing::warn!(store, "restart required to use other addresses of limit_store.redis"),
                Err(fault) => tracing::warn!(store, fault, "the file of limit_store.redis cannot be used"),
            }
        }
        current.client.clone()
    }

    /// Returns schemes, hosts, ports and databases of `urls`, if they can be used.
    pub fn identity(urls: &Secret, topology: &Topology) -> Option<String> {
        Self::read(urls, topology, None, CALL_TIMEOUT).ok().map(|(_, servers)| servers.identity)
    }

    /// Checks whether [`Self::new`] accepts the URLs.
    ///
    /// # Errors
    /// Reason why they cannot be used. It shows no part of the URLs.
    pub fn check(urls: &Secret, topology: &Topology) -> Result<(), String> {
        Self::read(urls, topology, None, CALL_TIMEOUT).map(drop)
    }

    fn read(
        urls: &Secret,
        topology: &Topology,
        ca: Option<&[u8]>,
        timeout: Duration,
    ) -> Result<(RedisClient, Servers), String> {
        let certificates = || TlsCertificates { client_tls: None, root_cert: ca.map(<[u8]>::to_vec) };
        let nodes = urls.expose(|urls| urls.split(',').map(|url| node(url.trim())).collect::<Result<Vec<_>, _>>())?;
        let list = |show: fn(&ConnectionInfo) -> String| nodes.iter().map(show).collect::<Vec<_>>().join(", ");
        let servers = Servers { shown: list(|node| node.addr().to_string()), identity: list(identity) };
        let [first, ..] = nodes.as_slice() else { return Err("it names no address".to_owned()) };
        if let Some(mismatch) = nodes.iter().find_map(|node| mismatch(node, first, topology)) {
            return Err(format!("its addresses differ in {mismatch}"));
        }
        let client = match topology {
            Topology::Single if nodes.len() > 1 => {
                Err("it names several addresses. Set `limit_store.kind` to \"cluster\" or \"sentinel\"".to_owned())
            }
            Topology::Single if is_tls(first.addr()) => {
                let client = text_of(Client::build_with_tls(first.clone(), certificates()));
                client.map(|client| RedisClient::Single(Box::new(client)))
            }
            Topology::Single => {
                text_of(Client::open(first.clone())).map(|client| RedisClient::Single(Box::new(client)))
            }
            Topology::Cluster => {
                let mut builder = ClusterClientBuilder::new(nodes.clone()).retries(0).tcp_settings(tcp());
                builder = builder.connection_timeout(CONNECT_TIMEOUT).response_timeout(timeout * 2);
                if is_tls(first.addr()) {
                    builder = builder.certs(certificates());
                }
                let client = text_of(builder.build());
                client.map(|client| RedisClient::Cluster(Box::new(client), Nodes::new(nodes, certificates())))
            }
            Topology::Sentinel(name) => sentinel(&nodes, first, name, certificates()),
        }?;
        Ok((client, servers))
    }

    /// Opens a connection, and checks with a PING that it works.
    ///
    /// # Errors
    /// Reason for the log, with a remedy if calgate knows one.
    pub(super) async fn connect(&self) -> Result<RedisConnection, String> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONNECT_TIMEOUT));
        let client = self.client();
        let connect = async {
            let mut connection = match &*client {
                RedisClient::Single(client) => client.get_multiplexed_async_connection_with_config(&config).await?,
                RedisClient::Cluster(client, _) => return cluster(client).await,
                RedisClient::Sentinel(client) => client.lock().await.get_async_connection_with_config(&config).await?,
            };
            redis::cmd("PING").query_async::<()>(&mut connection).await?;
            Ok(RedisConnection(Inner::Server(connection)))
        };
        match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(connected) => connected.map_err(|fault| reason(&fault)),
            Err(_) => Err(reason(&std::io::Error::from(std::io::ErrorKind::TimedOut).into())),
        }
    }

    /// Looks for the cause of a failed [`Self::connect`], in at most [`CONNECT_TIMEOUT`].
    pub(super) async fn diagnose(&self) -> Option<String> {
        let client = self.current.lock().client.clone();
        match &*client {
            RedisClient::Cluster(_, nodes) => nodes.fault().await,
            RedisClient::Single(_) | RedisClient::Sentinel(_) => None,
        }
    }
}

/// Connects to a cluster. The library reports success even if it cannot use any node, so this sends a PING to all primaries.
async fn cluster(client: &ClusterClient) -> RedisResult<RedisConnection> {
    let mut connection = client.get_async_connection().await?;
    let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
    connection.route_command(redis::cmd("PING"), all).await?;
    Ok(RedisConnection(Inner::Cluster(connection)))
}

impl std::fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedisConnection")
    }
}

impl std::fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.servers.shown)
    }
}

fn sentinel(
    nodes: &[ConnectionInfo],
    first: &ConnectionInfo,
    name: &str,
    certificates: TlsCertificates,
) -> Result<RedisClient, String> {
    let addresses = nodes.iter().map(|node| node.addr().clone());
    let kind = SentinelServerType::Master;
    let mut builder = text_of(SentinelClientBuilder::new(addresses, name, kind))?
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
    Ok(RedisClient::Sentinel(Box::new(tokio::sync::Mutex::new(text_of(builder.build())?))))
}

fn node(url: &str) -> Result<ConnectionInfo, String> {
    if let Some(fault) = fault_of(url) {
        return Err(fault.to_owned());
    }
    text_of(url.into_connection_info()).map(|node| node.set_tcp_settings(tcp()))
}

/// Returns what is wrong with a URL. The library's own message could repeat a part of it.
fn fault_of(address: &str) -> Option<&'static str> {
    let after_scheme = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or_default();
    let after_host = authority.rsplit(['@', ']']).next().unwrap_or_default();
    let port = after_host.split_once(':').map(|(_, port)| port.parse::<u16>());
    let Some(url) = redis::parse_redis_url(address) else {
        let no_port = port.is_some_and(|port| port.is_err());
        return Some(if no_port { "its port is not a number from 1 to 65535" } else { "it is not a URL" });
    };
    let database = url.path().trim_matches('/');
    if url.host_str().is_none_or(str::is_empty) {
        Some("it names no host")
    } else if url.port() == Some(0) {
        Some("its port is not a number from 1 to 65535")
    } else if !database.bytes().all(|b| b.is_ascii_digit()) || database.len() > 9 {
        Some("its database is not a number")
    } else if url.fragment().is_some() {
        Some("it has a fragment")
    } else {
        None
    }
}

/// Returns the setting in which two URLs differ although one client needs it to be the same. Of several sentinels, the
/// first URL decides about user, password and database.
fn mismatch(one: &ConnectionInfo, other: &ConnectionInfo, topology: &Topology) -> Option<&'static str> {
    let (a, b) = (one.redis_settings(), other.redis_settings());
    if is_tls(one.addr()) != is_tls(other.addr()) {
        return Some("the use of TLS");
    }
    let user = a.username() != b.username() || a.password() != b.password();
    match topology {
        Topology::Cluster if user => Some("user or password"),
        Topology::Cluster if a.db() != b.db() => Some("their database"),
        Topology::Single | Topology::Cluster | Topology::Sentinel(_) => None,
    }
}

/// Returns all of a URL except user and password.
fn identity(node: &ConnectionInfo) -> String {
    let scheme = if is_tls(node.addr()) { "rediss" } else { "redis" };
    format!("{scheme}://{}/{}", node.addr(), node.redis_settings().db())
}

/// Turns off Nagle's algorithm: waiting for the acknowledgement of the previous packet takes longer than the call.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn is_tls(address: &ConnectionAddr) -> bool {
    matches!(address, ConnectionAddr::TcpTls { .. })
}

/// Returns the kind of an error without its details, which could repeat a part of the URL.
fn text_of<T>(result: RedisResult<T>) -> Result<T, String> {
    result.map_err(|fault| fault.category().to_owned())
}

/// Returns why a connection failed, with a remedy if calgate knows one. The server's message is cleaned.
pub(super) fn reason(fault: &RedisError) -> String {
    let message = sanitize(fault);
    // A bad signature means another authority of the same name.
    if ["UnknownIssuer", "BadSignature"].iter().any(|word| message.contains(word)) {
        return format!("{message}; its certificate is by an authority unknown here: name that in limit_store.ca_file");
    }
    if message.contains("not valid for name") {
        return format!("{message}; the store announces an address that its certificate lacks: see docs/sharing.md");
    }
    if fault.kind() == ErrorKind::AuthenticationFailed {
        return format!("{message}; user and password stand in the URL of limit_store.redis");
    }
    message
}

impl ConnectionLike for RedisConnection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match &mut self.0 {
            Inner::Server(connection) => connection.req_packed_command(cmd),
            Inner::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match &mut self.0 {
            Inner::Server(connection) => connection.req_packed_commands(cmd, offset, count),
            Inner::Cluster(connection) => connection.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match &self.0 {
            Inner::Server(connection) => connection.get_db(),
            Inner::Cluster(connection) => connection.get_db(),
        }
    }
}
