//! `calgate health`: the health check of a container that has no other program.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use http::StatusCode;

use super::Outcome;
use super::store::block_on;
use crate::forward::{client_builder, error_chain};

/// Time for the whole check, 2 s.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Path of the liveness check.
const PATH: &str = "/livez";

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
    match block_on(ask(&args.admin)) {
        Ok(Ok(StatusCode::OK)) => Outcome::Done,
        Ok(Ok(status)) => Outcome::Failed(format!("unhealthy: {PATH} answered {status}")),
        Ok(Err(fault)) | Err(fault) => Outcome::Failed(format!("unhealthy: {fault}")),
    }
}

/// Returns the status of the admin listener's health check.
async fn ask(admin: &Admin) -> Result<StatusCode, String> {
    let builder = client_builder(None)?.timeout(TIMEOUT);
    let (builder, authority, address) = match admin {
        Admin::Tcp(address) => (builder, address.to_string(), address.to_string()),
        Admin::Unix(path) => (builder.unix_socket(&**path), "localhost".to_owned(), path.display().to_string()),
    };
    let client = builder.build().map_err(|fault| error_chain(&fault))?;
    let response = client.get(format!("http://{authority}{PATH}")).send().await;
    response.map(|response| response.status()).map_err(|fault| format!("{address}: {}", error_chain(&fault)))
}
