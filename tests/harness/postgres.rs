//! PostgreSQL server of one test, on a socket in its own folder. `scripts/test-deps` installs the programs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::eventually;

/// Database cluster. It stops at the end of the test.
pub struct Postgres {
    programs: PathBuf,
    folder: tempfile::TempDir,
}

impl Postgres {
    /// Creates a cluster and starts it.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Self { programs: programs(), folder };
        fs::set_permissions(server.folder.path(), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(server.data()).unwrap();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(server.folder.path()).arg(server.data()));
        }
        let data = server.data();
        server.run("initdb", &["-D", data.to_str().unwrap(), "-A", "trust", "-U", "calgate", "--no-sync"]);
        server.resume();
        server
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Returns the connection URL.
    pub fn address(&self) -> String {
        format!("postgresql:///postgres?user=calgate&host={}", self.folder.path().display())
    }

    /// Starts the server again after [`Self::stop`].
    pub fn resume(&self) {
        let socket = format!("-c listen_addresses= -c unix_socket_directories={}", self.folder.path().display());
        let (data, log) = (self.data(), self.folder.path().join("log"));
        let (data, log) = (data.to_str().unwrap(), log.to_str().unwrap());
        self.run("pg_ctl", &["start", "-w", "-D", data, "-l", log, "-o", &socket]);
    }

    /// Stops the server at once, and closes all connections.
    pub fn stop(&self) {
        self.run("pg_ctl", &["stop", "-w", "-m", "immediate", "-D", self.data().to_str().unwrap()]);
    }

    fn run(&self, program: &str, args: &[&str]) {
        run(as_user(&self.programs.join(program)).args(args).current_dir("/"));
    }
}

/// Returns a command for a program that refuses to run as root.
fn as_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}

/// `PgBouncer` in front of a server, on its own socket. It stops at the end of the test.
pub struct PgBouncer {
    folder: tempfile::TempDir,
    child: Child,
}

impl PgBouncer {
    /// Starts a pooler in that pool mode, with that many connections to the server.
    pub fn start(server: &Postgres, mode: &str, connections: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (path, behind) = (folder.path().display(), server.folder.path().display());
        let settings = format!(
            "[databases]\npostgres = host={behind} user=calgate\n[pgbouncer]\nlisten_addr =\nlisten_port = 6432\n\
             unix_socket_dir = {path}\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = {connections}\n"
        );
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, settings).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(folder.path()));
        }
        let child = as_user(Path::new("/usr/sbin/pgbouncer")).arg("-q").arg(file).stderr(Stdio::null()).spawn();
        let child = child.expect("PgBouncer; `make test` installs it");
        eventually("the pooler", || UnixStream::connect(folder.path().join(".s.PGSQL.6432")).ok());
        Self { folder, child }
    }

    /// Returns the connection URL.
    pub fn address(&self) -> String {
        format!("postgresql:///postgres?user=calgate&port=6432&host={}", self.folder.path().display())
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.data().join("postmaster.pid"));
        if pid.is_ok() {
            self.stop();
        }
    }
}

fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}");
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Returns the folder of the programs on Debian, of the newest version.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL; `make test` installs it");
    let folders = versions.map(|version| version.unwrap().path().join("bin")).filter(|bin| bin.join("initdb").exists());
    folders.max_by_key(|bin| version(bin)).expect("PostgreSQL; `make test` installs it")
}

fn version(bin: &Path) -> u32 {
    bin.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse().ok()).unwrap_or(0)
}
