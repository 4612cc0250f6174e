//! `calgate health`: the health check of a container that has no other program.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use http::StatusCode;
use http::header::HOST;

use super::Outcome;
use super::store::block_on;
use crate::forward::{client_builder, error_chain};

/// Time limit of the whole check, 2 s.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Path of the liveness check.
const PATH: &str = "/livez";

/// Arguments of `calgate health`.
#[derive(Args)]
pub(super) struct HealthArgs {
    /// The address of the admin listener, as in `listen.admin`
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090", env = "CALGATE_ADMIN")]
    admin: AdminAddress,
}

/// Address of an admin listener.
#[derive(Clone)]
enum AdminAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| "expected IP:PORT or unix:PATH".to_owned()),
        }
    }
}

pub(super) fn run(args: &HealthArgs) -> Outcome {
    match block_on(request_status(&args.admin)) {
        Ok(Ok(StatusCode::OK)) => Outcome::Done,
        Ok(Ok(status)) => Outcome::Failed(format!("unhealthy: {PATH} answered {status}")),
        Ok(Err(fault)) | Err(fault) => Outcome::Failed(format!("unhealthy: {fault}")),
    }
}

/// Returns the status of the admin listener's health check.
async fn request_status(admin: &AdminAddress) -> Result<StatusCode, String> {
    let builder = client_builder(None)?.timeout(TIMEOUT);
    let (builder, authority, address) = match admin {
        AdminAddress::Tcp(address) => (builder, address.to_string(), address.to_string()),
        AdminAddress::Unix(path) => (builder.unix_socket(&**path), "localhost".to_owned(), path.display().to_string()),
    };
    let client = builder.build().map_err(|fault| error_chain(&fault))?;
    let response = client
        .get(format!("http://{authority}{PATH}"))
        // The admin listener accepts this host at every address, also at 0.0.0.0.
        .header(HOST, "localhost")
        .send()
        .await;
    response.map(|response| response.status()).map_err(|fault| format!("{address}: {}", error_chain(&fault)))
}
