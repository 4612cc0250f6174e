//! Redis server of one test, on a free port. The test can stop, kill and restart it.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use super::{eventually, free_port};

/// Running server.
pub struct Redis {
    pub port: u16,
    child: Child,
    arguments: Vec<String>,
    folder: tempfile::TempDir,
}

impl Redis {
    /// Starts a server without persistence.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with more arguments.
    pub fn start_with(arguments: &[&str]) -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let child = spawn(port, &folder, &arguments);
        let redis = Self { port, child, arguments, folder };
        redis.wait_until_it_listens();
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs a command with redis-cli, and returns its output.
    pub fn cli(&self, arguments: &[&str]) -> String {
        cli(self.port, arguments)
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the server again, empty, on the same port.
    pub fn restart(&mut self) {
        self.child = spawn(self.port, &self.folder, &self.arguments);
        self.wait_until_it_listens();
    }

    /// Sends a signal. `-STOP` freezes the server, and `-CONT` continues it.
    pub fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    fn wait_until_it_listens(&self) {
        eventually("redis-server listening", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }
}

fn cli(port: u16, arguments: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Program of the server: redis-server, or a compatible one (scripts/test-valkey).
fn server() -> Command {
    Command::new(std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into()))
}

fn spawn(port: u16, folder: &tempfile::TempDir, arguments: &[String]) -> Child {
    server()
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--dir", folder.path().to_str().unwrap()])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed; scripts/test-deps installs it")
}

/// Sentinel that watches one server as `main`.
pub struct Sentinel {
    port: u16,
    tls_port: u16,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Sentinel {
    fn start_for(primary: &Redis) -> Self {
        Self::start("127.0.0.1", primary.port, 0, &[])
    }

    /// Starts a sentinel with TLS and plain connections. `tls` are arguments of a server.
    pub fn start_with_tls(host: &str, port: u16, tls: &[String]) -> Self {
        Self::start(host, port, free_port(), tls)
    }

    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// Runs a command with redis-cli, and returns its output.
    pub fn cli(&self, arguments: &[&str]) -> String {
        cli(self.port, arguments)
    }

    fn start(host: &str, watched: u16, tls_port: u16, tls: &[String]) -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let file = folder.path().join("sentinel.conf");
        let mut lines = format!(
            "port {port}\ntls-port {tls_port}\nsentinel monitor main {host} {watched} 1\n\
             sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n"
        );
        for pair in tls.chunks(2) {
            lines.push_str(&format!("{}\n", pair.join(" ").trim_start_matches("--")));
        }
        std::fs::write(&file, lines).unwrap();
        let child = server()
            .args([file.to_str().unwrap(), "--sentinel"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("a sentinel listening", || TcpStream::connect(("127.0.0.1", port)).ok());
        Self { port, tls_port, child, _folder: folder }
    }
}

/// Primary, its replica, and a sentinel that watches both.
pub struct ReplicatedRedis {
    pub primary: Redis,
    pub replica: Redis,
    sentinel: Sentinel,
}

impl ReplicatedRedis {
    pub fn start() -> Self {
        let primary = Redis::start();
        let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &primary.port.to_string()]);
        eventually("a replica", || primary.cli(&["info", "replication"]).contains("state=online").then_some(()));
        let sentinel = Sentinel::start_for(&primary);
        let known = || primary.cli(&["-p", &sentinel.port.to_string(), "sentinel", "replicas", "main"]);
        eventually("a sentinel that knows both", || known().contains(&replica.port.to_string()).then_some(()));
        Self { primary, replica, sentinel }
    }

    /// Returns the lines of `[limit_store]` for it.
    pub fn config(&self) -> String {
        let url = format!("redis://127.0.0.1:{}", self.sentinel.port);
        format!("kind = \"sentinel\"\nsentinel = \"main\"\nredis = \"{url}\"")
    }

    /// Waits until the replica is the primary.
    pub fn wait_for_failover(&self) {
        eventually("the replica takes over", || self.replica.cli(&["role"]).starts_with("master").then_some(()));
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
