//! Runs the gateway as a process: configuration, start, reload, logs and exit.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use calgate::identify::GatewayKey;
use parking_lot::Mutex;
use serde_json::Value;

use super::{RawConnection, Response, eventually};

/// A gateway key and its hash.
pub struct Key {
    pub text: String,
    pub hash: String,
}

impl Key {
    pub fn new() -> Self {
        let text = GatewayKey::generate().unwrap();
        let hash = GatewayKey::parse(&text).unwrap().hash().to_string();
        Self { text, hash }
    }
}

/// Builder of a gateway process.
pub struct Setup {
    config: String,
    environment: Vec<(String, String)>,
    through: Vec<String>,
    listen: String,
    workers: usize,
    linked: bool,
}

impl Setup {
    /// A gateway that forwards to `base_url` and listens on free ports.
    pub fn to(base_url: &str) -> Self {
        let config = format!("[upstream]\nbase_url = \"{base_url}\"\n");
        Self {
            config,
            environment: Vec::new(),
            through: Vec::new(),
            listen: "address = \"127.0.0.1:0\"\n".to_owned(),
            workers: 2,
            linked: false,
        }
    }

    /// Appends a piece of configuration. Keys of `[upstream]` must come first.
    pub fn with(mut self, piece: &str) -> Self {
        self.config.push_str(piece);
        self.config.push('\n');
        self
    }

    /// Sets keys of `[listen]`.
    pub fn listen(mut self, keys: &str) -> Self {
        self.listen = format!("{keys}\n");
        self
    }

    /// Sets the number of workers. The default is two.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the gateway with a symbolic link to its configuration, which is in another folder.
    pub fn linked(mut self) -> Self {
        self.linked = true;
        self
    }

    /// Starts the gateway through another program, which receives the command line of the gateway.
    pub fn through(mut self, program: &[&str]) -> Self {
        self.through = program.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Adds the credential `main`, an API key, and the consumer `billing` with `key` and a limit that no test reaches.
    pub fn billing(self, plan: &str, key: &Key) -> Self {
        self.env("CAL_TEST_KEY", UPSTREAM_KEY).with(&billing(plan, key))
    }

    pub fn text(&self) -> String {
        format!("[listen]\nadmin = \"127.0.0.1:0\"\nworkers = {}\n{}\n{}", self.workers, self.listen, self.config)
    }

    /// Starts the gateway and waits until it listens.
    pub fn start(self) -> Gateway {
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("calgate.toml");
        let file = if self.linked { folder.path().join("elsewhere/calgate.toml") } else { named.clone() };
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, self.text()).unwrap();
        if self.linked {
            std::os::unix::fs::symlink(&file, &named).unwrap();
        }
        let own = [env!("CARGO_BIN_EXE_calgate"), "serve", "--config", named.to_str().unwrap()].map(str::to_owned);
        let line: Vec<_> = self.through.iter().chain(&own).collect();
        let mut child = Command::new(line[0])
            .args(&line[1..])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("calgate starts");
        let (access, log) = (Lines::of(child.stdout.take().unwrap()), Lines::of(child.stderr.take().unwrap()));
        let listening = eventually("listening", || {
            assert!(child.try_wait().unwrap().is_none(), "calgate ended: {}", log.all().join("\n"));
            log.json().into_iter().find(|line| line["message"] == "calgate is listening")
        });
        let address = |key: &str| listening[key].as_str().unwrap().trim_start_matches("http://").to_owned();
        Gateway {
            address: address("address"),
            admin: address("admin").parse().unwrap(),
            child,
            access,
            log,
            file,
            folder,
        }
    }
}

/// API key of the credential `main` of [`Setup::billing`].
pub const UPSTREAM_KEY: &str = "cal_test_0123456789abcdef";

fn billing(plan: &str, key: &Key) -> String {
    format!(
        "[credentials.main]\nkind = \"api-key\"\napi_key = {{ env = \"CAL_TEST_KEY\" }}\nplan = \"{plan}\"\n\
         requests_per_minute = 100000\n[tiers.roomy]\nrequests_per_minute = 100000\n\
         [consumers.billing]\nkeys = [\"{}\"]\ncredential = \"main\"\ntier = \"roomy\"\n",
        key.hash
    )
}

/// A running gateway process. Dropping it kills the process.
pub struct Gateway {
    pub address: String,
    pub admin: SocketAddr,
    pub file: PathBuf,
    child: Child,
    access: Lines,
    log: Lines,
    folder: tempfile::TempDir,
}

impl Gateway {
    /// Opens a connection, as a client does.
    pub fn connect(&self) -> RawConnection {
        RawConnection::connect(self.address.parse().unwrap())
    }

    /// Sends one request, such as `GET /v2/me`, with header lines, on a new connection.
    pub fn ask(&self, request: &str, headers: &[&str]) -> Response {
        self.connect().ask(request, headers)
    }

    /// Sends a request to the admin listener.
    pub fn ask_admin(&self, request: &str, headers: &[&str]) -> Response {
        RawConnection::connect(self.admin).ask(request, headers)
    }

    /// Returns the sum of all series of a counter whose labels contain `labels`.
    pub fn metric(&self, name: &str, labels: &str) -> u64 {
        let text = self.ask_admin("GET /metrics", &[]).text();
        let of = |line: &str| line.starts_with(name) && line.contains(labels);
        text.lines().filter(|line| of(line)).map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Waits until the access log has at least `n` lines, and returns them.
    pub fn access_log(&self, n: usize) -> Vec<Value> {
        eventually("an access log line", || Some(self.access.json()).filter(|lines| lines.len() >= n))
    }

    /// Returns the log of the gateway so far, without the access log.
    pub fn log(&self) -> Vec<String> {
        self.log.all()
    }

    /// Waits for a line of the log that contains `text`.
    pub fn wait_for_log(&self, text: &str) -> String {
        eventually(text, || self.log.all().into_iter().find(|line| line.contains(text)))
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Replaces the configuration file.
    pub fn rewrite(&self, change: impl FnOnce(String) -> String) {
        let text = change(std::fs::read_to_string(&self.file).unwrap());
        let new = self.folder.path().join("new.toml");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    /// Replaces the configuration file, and waits until the gateway has applied or rejected it.
    pub fn reload(&self, change: impl FnOnce(String) -> String) {
        let before = self.metric("calgate_config_reloads_total", "");
        self.rewrite(change);
        eventually("a reload", || (self.metric("calgate_config_reloads_total", "") > before).then_some(()));
    }

    /// Waits until the process ends, and returns its exit code.
    pub fn wait_for_exit(&mut self) -> Option<i32> {
        eventually("the end", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the gateway\n{}", self.log.all().join("\n"));
        }
    }
}

/// Lines that a process has written so far, collected by a thread.
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let gathered = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                gathered.lock().push(line);
            }
        });
        Self(lines)
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().clone()
    }

    fn json(&self) -> Vec<Value> {
        self.all().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}
