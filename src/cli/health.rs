//! `calgate health`: the health check of a container that has no other program.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::Outcome;

const PATIENCE: Duration = Duration::from_secs(2);

/// Which gateway.
#[derive(Args)]
pub(super) struct HealthArgs {
    /// The address of its admin listener, as `listen.admin` has it
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090", env = "CALGATE_ADMIN")]
    admin: Admin,
}

/// Where an admin listener is.
#[derive(Clone)]
enum Admin {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Admin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| "this is neither IP:PORT nor unix:PATH".to_owned()),
        }
    }
}

pub(super) fn run(args: &HealthArgs) -> Outcome {
    match ask(&args.admin) {
        Ok(head) if head.starts_with("HTTP/1.1 200 ") => Outcome::Done,
        Ok(head) => Outcome::Failed(format!("unhealthy: {}", head.lines().next().unwrap_or("no answer"))),
        Err(fault) => Outcome::Failed(format!("unhealthy: {fault}")),
    }
}

fn ask(admin: &Admin) -> Result<String, String> {
    let asked = match admin {
        Admin::Tcp(address) => TcpStream::connect_timeout(address, PATIENCE).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            exchange(stream)
        }),
        Admin::Unix(path) => UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            exchange(stream)
        }),
    };
    asked.map_err(|fault| match admin {
        Admin::Tcp(address) => format!("{address}: {fault}"),
        Admin::Unix(path) => format!("{}: {fault}", path.display()),
    })
}

fn exchange(mut stream: impl Read + Write) -> std::io::Result<String> {
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer)
}
