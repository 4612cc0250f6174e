//! `calgate health`: the health check of a container that has no other program.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;

use super::Outcome;

/// Which gateway.
#[derive(Args)]
pub(super) struct HealthArgs {
    /// The address of its admin listener
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090", env = "CALGATE_ADMIN")]
    admin: SocketAddr,
}

pub(super) fn run(args: &HealthArgs) -> Outcome {
    match ask(args.admin) {
        Ok(head) if head.starts_with("HTTP/1.1 200 ") => Outcome::Done,
        Ok(head) => Outcome::Failed(format!("unhealthy: {}", head.lines().next().unwrap_or("no answer"))),
        Err(fault) => Outcome::Failed(format!("unhealthy: {}: {fault}", args.admin)),
    }
}

fn ask(admin: SocketAddr) -> std::io::Result<String> {
    let patience = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&admin, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET /livez HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer)
}
