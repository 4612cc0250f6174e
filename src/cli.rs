//! The commands and their exit codes.

mod catalog;
mod credentials;
mod explain;
mod health;
mod key;
mod login;
mod serve;
mod store;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::builder::OsStringValueParser;
use clap::{Args, Parser, Subcommand};

use crate::config::environment::from_environment;
use crate::config::{Config, Secrets, diagnostics::ConfigError};
use crate::serve::ConfigSource;

/// A rate-limiting, authenticating reverse proxy for the Cal.com API v2.
#[derive(Parser)]
#[command(name = "calgate", version, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 it failed while running, or `explain` says deny; 2 the command line or the configuration is wrong;
3 `catalog diff` found a change.";

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or Ctrl-C; SIGHUP or a change of the file reloads the configuration
    Serve(ConfigArgs),
    /// Report everything that is wrong with a configuration
    Check(CheckArgs),
    /// Say what would be decided about a request, and by which rule, without sending one
    Explain(explain::ExplainArgs),
    /// Make gateway keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Log in at Cal.com for a credential of kind `oauth`: its tokens go into the store
    Login(login::LoginArgs),
    /// List the credentials and how they are, or put tokens into the store
    Credentials(credentials::CredentialsArgs),
    /// Look after the store
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Look at the catalog of Cal.com's operations, or renew it
    #[command(subcommand)]
    Catalog(catalog::CatalogCommand),
    /// Ask a running gateway's admin listener whether it is alive (for a container's health check)
    Health(health::HealthArgs),
}

/// Which configuration.
#[derive(Args)]
struct ConfigArgs {
    /// The configuration file; without one, and with `CAL_API_KEY` set, the environment is the configuration
    #[arg(long, value_name = "FILE", env = "CALGATE_CONFIG", value_parser = OsStringValueParser::new())]
    config: Option<OsString>,
}

/// A configuration whose secrets may be elsewhere.
#[derive(Args)]
struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Do not read the files and variables that hold secrets, so that a machine without them can check the rest
    #[arg(long)]
    without_secrets: bool,
}

impl CheckArgs {
    fn secrets(&self) -> Secrets {
        if self.without_secrets { Secrets::Placeholders } else { Secrets::Read }
    }
}

/// What a command came to.
enum Outcome {
    Done,
    Failed(String),
    Misused(String),
    Changed,
    /// `explain` printed that the request is denied.
    Denied,
}

impl Outcome {
    fn exit(self) -> ExitCode {
        match self {
            Self::Done => ExitCode::SUCCESS,
            Self::Failed(fault) => {
                eprintln!("calgate: {fault}");
                ExitCode::from(1)
            }
            Self::Misused(fault) => {
                eprintln!("{fault}");
                ExitCode::from(2)
            }
            Self::Changed => ExitCode::from(3),
            Self::Denied => ExitCode::from(1),
        }
    }
}

/// Writes a command's answer to standard output. That its reader has seen enough and left is no fault.
fn print(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(fault) if fault.kind() != std::io::ErrorKind::BrokenPipe => {
            Outcome::Failed(format!("standard output cannot be written: {fault}"))
        }
        _ => Outcome::Done,
    }
}

/// Runs the command that the program was called with.
pub fn main() -> ExitCode {
    crate::secret::disable_core_dumps();
    let outcome = match Cli::parse().command {
        Command::Serve(args) => serve::serve(&args),
        Command::Check(args) => serve::check(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Key(command) => key::run(&command),
        Command::Login(args) => login::run(&args),
        Command::Credentials(args) => credentials::run(&args),
        Command::Store(command) => store::run(&command),
        Command::Catalog(command) => catalog::run(&command),
        Command::Health(args) => health::run(&args),
    };
    outcome.exit()
}

impl ConfigArgs {
    /// Reads the configuration.
    fn read(&self) -> Result<(Config, ConfigSource), Outcome> {
        self.read_with(Secrets::Read)
    }

    /// Reads the configuration, with or without its secrets.
    fn read_with(&self, secrets: Secrets) -> Result<(Config, ConfigSource), Outcome> {
        let misused = |error: Box<ConfigError>| Outcome::Misused(error.to_string());
        // A variable that is set to nothing names nothing.
        if let Some(path) = self.config.as_ref().filter(|path| !path.is_empty()) {
            return ConfigSource::read(Path::new(path), secrets).map_err(misused);
        }
        match from_environment() {
            Some(config) => Ok((config.map_err(misused)?, ConfigSource::Environment)),
            None => Err(Outcome::Misused(
                "calgate: there is no configuration. Name a file with --config or CALGATE_CONFIG, or set CAL_API_KEY to \
                 serve one app with it."
                    .to_owned(),
            )),
        }
    }
}
