//! Addresses that a cluster or a sentinel announces, and that its certificate does not name.

use std::net::Ipv4Addr;
use std::path::Path;

use tempfile::TempDir;

use super::check_forty_are_shared;
use super::connection::{start_two, terms};
use crate::cal_sim::certificates::issue;
use crate::harness::{Fleet, Redis, Sentinel, eventually, free_port};

/// An address of this machine that no certificate names.
const ANNOUNCED: &str = "127.0.0.3";

/// Server with TLS, and a certificate for `localhost` and 127.0.0.1.
struct Server {
    redis: Redis,
    port: u16,
    tls: Vec<String>,
    folder: TempDir,
}

impl Server {
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, tls) = (free_port(), tls_arguments(folder.path()));
        let listen = ["--tls-port", &port.to_string(), "--bind", "127.0.0.1", ANNOUNCED].map(str::to_owned);
        let arguments: Vec<&str> = listen.iter().chain(&tls).map(String::as_str).chain(more.iter().copied()).collect();
        let redis = Redis::start_with(&arguments);
        Self { redis, port, tls, folder }
    }

    /// Starts two gateways that connect to `port`.
    fn start_two(&self, port: u16, lines: &str) -> Fleet {
        let authority = self.folder.path().join("ca.pem");
        let lines = format!("{lines}\nca_file = \"{}\"", authority.display());
        start_two(&terms(), &format!("rediss://localhost:{port}"), &lines)
    }
}

/// Returns the arguments of a server with TLS. Writes its files to `folder`.
fn tls_arguments(folder: &Path) -> Vec<String> {
    let (key, certificate, authority) = issue(Ipv4Addr::LOCALHOST.into()).unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let files = [
        ("--tls-key-file", file("key.pem", &key.serialize_pem())),
        ("--tls-cert-file", file("server.pem", &certificate.pem())),
        ("--tls-ca-cert-file", file("ca.pem", &authority)),
        ("--tls-auth-clients", "no".to_owned()),
        ("--tls-replication", "yes".to_owned()),
    ];
    files.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

/// Checks that the log names the node, its reason and the remedy.
fn check_logged_reason(fleet: &Fleet, node: &str) {
    let line = fleet.gateways[0].wait_for_log("not valid for name");
    for part in
        [node, "not valid for name", "the store announces an address that its certificate lacks: see docs/sharing.md"]
    {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

#[test]
fn logs_why_a_node_that_a_cluster_announces_cannot_be_used() {
    let bus = free_port().to_string();
    let cluster = ["--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", &bus];
    let server = Server::start(&[&cluster[..], &["--cluster-announce-ip", ANNOUNCED]].concat());
    assert_eq!(server.redis.cli(&["cluster", "addslotsrange", "0", "16383"]).trim(), "OK");
    let works = || server.redis.cli(&["cluster", "info"]).contains("cluster_state:ok").then_some(());
    eventually("a cluster", works);
    let fleet = server.start_two(server.port, "kind = \"cluster\"");
    check_logged_reason(&fleet, &format!("{ANNOUNCED}:{}", server.port));
    // The remedy of docs/sharing.md.
    for (name, value) in [("cluster-announce-hostname", "localhost"), ("cluster-preferred-endpoint-type", "hostname")] {
        assert_eq!(server.redis.cli(&["config", "set", name, value]).trim(), "OK");
    }
    check_forty_are_shared(&fleet);
}

#[test]
fn logs_why_a_primary_that_a_sentinel_announces_cannot_be_used() {
    let server = Server::start(&[]);
    let sentinel = Sentinel::start_with_tls(ANNOUNCED, server.port, &server.tls);
    let kind = "kind = \"sentinel\"\nsentinel = \"main\"";
    let fleet = server.start_two(sentinel.tls_port(), kind);
    check_logged_reason(&fleet, "");
    // The remedy of docs/sharing.md.
    for (name, value) in [("resolve-hostnames", "yes"), ("announce-hostnames", "yes")] {
        assert_eq!(sentinel.cli(&["sentinel", "config", "set", name, value]).trim(), "OK");
    }
    sentinel.cli(&["sentinel", "remove", "main"]);
    assert_eq!(sentinel.cli(&["sentinel", "monitor", "main", "localhost", &server.port.to_string(), "1"]).trim(), "OK");
    check_forty_are_shared(&fleet);
}

#[test]
fn the_documentation_has_the_remedies() {
    let page = include_str!("../../docs/sharing.md");
    for setting in [
        "`cluster-announce-hostname`",
        "`cluster-preferred-endpoint-type hostname`",
        "`resolve-hostnames yes`",
        "`announce-hostnames yes`",
        "`sentinel monitor`",
    ] {
        assert!(page.contains(setting), "{setting}");
    }
}
