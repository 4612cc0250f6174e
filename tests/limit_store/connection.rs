//! Connections to the store: topologies, users, TLS, and the log of a failure.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use tempfile::TempDir;

use super::{check_forty_are_shared, wait_for_joins};
use crate::cal_sim::certificates::issue;
use crate::harness::{
    Fleet, Gateway, Key, Redis, ReplicatedRedis, Setup, Terms, Upstream, eventually, free_port, time_limit,
};

/// Terms of two gateways that share a consumer's 40 requests.
pub(super) fn terms() -> Terms {
    let headers = time_limit(500);
    Terms {
        gateways: 2,
        limit: 100_000,
        window: Duration::from_secs(60),
        quirk: false,
        others: 0,
        config: format!("[limits]\nupstream_connect = \"500ms\"\nupstream_headers = \"{headers}\""),
        per_minute: 40,
    }
}

/// Starts two gateways with a store at `url`, which has a password, and with more `lines` in its section.
pub(super) fn start_two(terms: &Terms, url: &str, lines: &str) -> Fleet {
    let store = format!("on_loss = \"closed\"\nredis = {{ env = \"CALGATE_TEST_STORE_URL\" }}\n{lines}");
    Fleet::start_with_env(terms, |_| store.clone(), |_| vec![("CALGATE_TEST_STORE_URL", url.to_owned())])
}

#[test]
fn shares_limits_in_a_cluster_of_three() {
    let node = || {
        let bus = free_port().to_string();
        Redis::start_with(&["--cluster-enabled", "yes", "--cluster-port", &bus])
    };
    let nodes = [node(), node(), node()];
    let addresses = nodes.each_ref().map(|node| format!("127.0.0.1:{}", node.port));
    let mut create = vec!["--cluster", "create"];
    create.extend(addresses.iter().map(String::as_str));
    create.push("--cluster-yes");
    nodes[0].cli(&create);
    eventually("a cluster", || {
        nodes.iter().all(|node| node.cli(&["cluster", "info"]).contains("cluster_state:ok")).then_some(())
    });
    for node in &nodes {
        create_user(node, IN_A_CLUSTER);
    }
    let url = with_user(&format!("{},{}", nodes[0].url(), nodes[1].url()));
    let fleet = start_two(&terms(), &url, "kind = \"cluster\"");
    check_forty_are_shared(&fleet);
}

#[test]
fn shares_limits_in_a_primary_of_sentinels_and_in_its_successor() {
    let mut watched = ReplicatedRedis::start();
    create_user(&watched.primary, BEHIND_SENTINELS);
    create_user(&watched.replica, BEHIND_SENTINELS);
    let config = watched.config();
    let (lines, url) = config.rsplit_once("\nredis = ").unwrap();
    let fleet = start_two(&terms(), &with_user(url.trim_matches('"')), lines);
    wait_for_joins(&fleet);
    watched.primary.kill();
    watched.wait_for_failover();
    let shared = |gateway: &Gateway| gateway.log().iter().filter(|line| line.contains("limits are shared")).count();
    eventually("the gateways share again", || fleet.gateways.iter().all(|gateway| shared(gateway) == 2).then_some(()));
    check_forty_are_shared(&fleet);
}

/// Permissions of a user for gateways, as in docs/sharing.md, and further ones by topology.
const USER: &[&str] =
    &["~calgate:*", "+@read", "+@write", "+@scripting", "+@transaction", "-@dangerous", "+ping", "+time"];
const IN_ANOTHER_DATABASE: &[&str] = &["+select"];
const IN_A_CLUSTER: &[&str] = &["+cluster|slots", "+asking"];
const BEHIND_SENTINELS: &[&str] = &["+role"];

/// Creates that user on the server, with `more` permissions.
fn create_user(redis: &Redis, more: &[&str]) {
    let password = format!(">{PASSWORD}");
    let said = redis.cli(&[&["acl", "setuser", "calgate", "on", &password], USER, more].concat());
    assert_eq!(said.trim(), "OK");
}

/// Adds that user and its password to the URLs.
fn with_user(urls: &str) -> String {
    urls.replace("redis://", &format!("redis://calgate:{PASSWORD}@"))
}

#[test]
fn the_documentation_has_the_permissions_of_the_user() {
    let page = include_str!("../../docs/sharing.md").replace('\n', " ");
    for rules in [USER, IN_ANOTHER_DATABASE, IN_A_CLUSTER, BEHIND_SENTINELS] {
        assert!(page.contains(&format!("`{}`", rules.join(" "))), "{rules:?}");
    }
}

/// Server with TLS and plain connections, and a user who has only the permissions of a gateway.
struct Secured {
    redis: Redis,
    port: u16,
    folder: TempDir,
}

const PASSWORD: &str = "s3cret-of-the-store";

impl Secured {
    fn start() -> Self {
        let (key, certificate, authority) = issue(Ipv4Addr::LOCALHOST.into()).unwrap();
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (key, certificate) = (file("key.pem", &key.serialize_pem()), file("server.pem", &certificate.pem()));
        file("ca.pem", &authority);
        let (tls_port, password) = (port.to_string(), format!(">{PASSWORD}"));
        let tls = ["--tls-port", &tls_port, "--tls-cert-file", &certificate, "--tls-key-file", &key];
        let open = ["--tls-auth-clients", "no"];
        let user = ["--user", "calgate", "on", &password];
        let others = ["--user", "default", "off", "--user", "admin", "on", &password, "+flushall"];
        let redis = Redis::start_with(&[&tls[..], &open, &user, USER, IN_ANOTHER_DATABASE, &others].concat());
        Self { redis, port, folder }
    }

    /// Starts two gateways with a store at `url`.
    fn start_two(url: &str, ca_file: &str) -> Fleet {
        start_two(&Terms { config: String::new(), ..terms() }, url, ca_file)
    }

    /// Empties the store, so that the next gateways find full buckets.
    fn flush(&self) {
        let said = self.redis.cli(&["--user", "admin", "--pass", PASSWORD, "--no-auth-warning", "flushall"]);
        assert_eq!(said.trim(), "OK");
    }

    fn url(&self, password: &str) -> String {
        format!("rediss://calgate:{password}@127.0.0.1:{}", self.port)
    }

    fn authority(&self) -> String {
        format!("ca_file = \"{}\"", self.folder.path().join("ca.pem").display())
    }
}

#[test]
fn the_log_shows_no_password_from_the_environment() {
    let store = Secured::start();
    let plain = format!("{}/3", with_user(&store.redis.url()));
    let secured = store.url(PASSWORD);
    for (url, ca_file, port) in [(plain, String::new(), store.redis.port), (secured, store.authority(), store.port)] {
        let fleet = Secured::start_two(&url, &ca_file);
        check_forty_are_shared(&fleet);
        let log = fleet.gateways[0].log().join("\n");
        assert!(log.contains(&port.to_string()) && !log.contains("s3cret"), "{log}");
        store.flush();
    }
}

#[test]
fn the_log_has_a_remedy_for_an_unknown_certificate_or_user() {
    let (store, other) = (Secured::start(), Secured::start());
    let wrong = [
        (store.url(PASSWORD), String::new(), "authority unknown here: name that in limit_store.ca_file"),
        (store.url(PASSWORD), other.authority(), "authority unknown here: name that in limit_store.ca_file"),
        (store.url("s3cret-but-old"), store.authority(), "user and password stand in the URL of limit_store.redis"),
    ];
    for (url, ca_file, help) in wrong {
        let fleet = Secured::start_two(&url, &ca_file);
        let line = fleet.gateways[0].wait_for_log("cannot reach the limit store");
        assert!(line.contains(help) && line.contains(&store.port.to_string()), "{line}");
        assert!(!line.contains("s3cret"), "{line}");
        assert_eq!(fleet.ask(0).1, "GATEWAY_STORE_LOST");
    }
}

/// Starts a server that replies to everything with an error that repeats a secret. Returns its port.
fn start_leaking_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut space = [0; 4096];
            while stream.read(&mut space).is_ok_and(|n| n > 0) {
                let _ =
                    stream.write_all(b"-ERR no tenant q9Zr/4Tb+c1/0xYw8Lm/Kd3s/Pv7Gh2Jn/5e\r\n".repeat(8).as_slice());
            }
        }
    });
    port
}

#[test]
fn the_log_hides_a_secret_that_the_store_repeats() {
    let key = Key::new();
    let store = format!("[limit_store]\nredis = \"redis://127.0.0.1:{}\"", start_leaking_server());
    let gateway = Setup::to(&Upstream::start().base_url()).with(&store).billing("teams", &key).start();
    let line = gateway.wait_for_log("cannot reach the limit store");
    assert!(line.contains("no tenant (hidden)"), "{line}");
    assert!(!gateway.log().iter().any(|line| line.contains("Pv7Gh2Jn")));
}

#[test]
fn the_next_connection_uses_a_rotated_password() {
    let (redis, upstream, key) = (Redis::start_with(&["--requirepass", "first"]), Upstream::start(), Key::new());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("redis-url");
    let write = |password: &str| {
        std::fs::write(&file, format!("redis://:{password}@127.0.0.1:{}\n", redis.port)).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    write("first");
    let gateway = Setup::to(&upstream.base_url())
        .with(&format!("[limit_store]\nredis = {{ file = \"{}\" }}", file.display()))
        .billing("teams", &key)
        .start();
    gateway.wait_for_log("limits are shared with all gateways on this store");
    redis.cli(&["-a", "first", "config", "set", "requirepass", "second"]);
    write("second");
    redis.cli(&["-a", "second", "client", "kill", "type", "normal"]);
    let own = format!("Authorization: Bearer {}", key.text);
    eventually("a connection with the new password", || {
        gateway.ask("GET /v2/me", &[&own]);
        gateway.log().iter().any(|line| line.contains("limit store is back")).then_some(())
    });
    gateway.wait_for_log("user and password of the limit store were read again");
    assert!(!gateway.log().iter().any(|line| line.contains("first") || line.contains("second@")));
    // Another database has other limits. Gateways that reconnect at different times would not share them.
    std::fs::write(&file, format!("redis://:second@127.0.0.1:{}/1\n", redis.port)).unwrap();
    redis.cli(&["-a", "second", "client", "kill", "type", "normal"]);
    eventually("a connection", || {
        gateway.ask("GET /v2/me", &[&own]);
        gateway.log().iter().any(|line| line.contains("restart required to use other addresses")).then_some(())
    });
}
