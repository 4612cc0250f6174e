//! Addresses that a cluster or a sentinel announces, where the certificates do not name them.

use std::net::Ipv4Addr;
use std::path::Path;

use tempfile::TempDir;

use super::connection::{terms, two};
use super::they_share_forty;
use crate::cal_sim::certificates::issue;
use crate::harness::{Fleet, Redis, Sentinel, eventually, free_port};

/// An address of this machine that no certificate names.
const ANNOUNCED: &str = "127.0.0.3";

/// A server that takes TLS, with a certificate for `localhost` and 127.0.0.1.
struct Server {
    redis: Redis,
    port: u16,
    tls: Vec<String>,
    folder: TempDir,
}

impl Server {
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, tls) = (free_port(), certificates(folder.path()));
        let listen = ["--tls-port", &port.to_string(), "--bind", "127.0.0.1", ANNOUNCED].map(str::to_owned);
        let arguments: Vec<&str> = listen.iter().chain(&tls).map(String::as_str).chain(more.iter().copied()).collect();
        let redis = Redis::start_with(&arguments);
        Self { redis, port, tls, folder }
    }

    /// Two gateways that look for the store at `port`.
    fn two(&self, port: u16, lines: &str) -> Fleet {
        let authority = self.folder.path().join("ca.pem");
        let lines = format!("{lines}\nca_file = \"{}\"", authority.display());
        two(&terms(), &format!("rediss://localhost:{port}"), &lines)
    }
}

/// The arguments for a server of TLS whose files are in `folder`.
fn certificates(folder: &Path) -> Vec<String> {
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

/// The log of a gateway names the node, its own reason and the remedy.
fn says_what_is_wrong(fleet: &Fleet, node: &str) {
    // A machine that is busy may be late once.
    let line = fleet.gateways[0].wait_for_log("not valid for name");
    for part in
        [node, "not valid for name", "the store announces an address that its certificate lacks: see docs/sharing.md"]
    {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

#[test]
fn a_cluster_that_announces_addresses_which_no_certificate_names() {
    let bus = free_port().to_string();
    let cluster = ["--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", &bus];
    let server = Server::start(&[&cluster[..], &["--cluster-announce-ip", ANNOUNCED]].concat());
    assert_eq!(server.redis.cli(&["cluster", "addslotsrange", "0", "16383"]).trim(), "OK");
    let works = || server.redis.cli(&["cluster", "info"]).contains("cluster_state:ok").then_some(());
    eventually("a cluster", works);
    let fleet = server.two(server.port, "kind = \"cluster\"");
    says_what_is_wrong(&fleet, &format!("{ANNOUNCED}:{}", server.port));
    // The remedy of docs/sharing.md.
    for (name, value) in [("cluster-announce-hostname", "localhost"), ("cluster-preferred-endpoint-type", "hostname")] {
        assert_eq!(server.redis.cli(&["config", "set", name, value]).trim(), "OK");
    }
    they_share_forty(&fleet);
}

#[test]
fn a_sentinel_that_announces_addresses_which_no_certificate_names() {
    let server = Server::start(&[]);
    let sentinel = Sentinel::secured(ANNOUNCED, server.port, &server.tls);
    let kind = "kind = \"sentinel\"\nsentinel = \"main\"";
    let fleet = server.two(sentinel.tls_port(), kind);
    says_what_is_wrong(&fleet, "");
    // The remedy of docs/sharing.md.
    for (name, value) in [("resolve-hostnames", "yes"), ("announce-hostnames", "yes")] {
        assert_eq!(sentinel.cli(&["sentinel", "config", "set", name, value]).trim(), "OK");
    }
    sentinel.cli(&["sentinel", "remove", "main"]);
    assert_eq!(sentinel.cli(&["sentinel", "monitor", "main", "localhost", &server.port.to_string(), "1"]).trim(), "OK");
    they_share_forty(&fleet);
}

#[test]
fn the_remedy_is_written_down() {
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
