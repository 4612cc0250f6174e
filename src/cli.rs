//! Command line: sub-commands, output and exit codes.

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
Exit codes: 0 success; 1 the command failed, or `explain` printed a denial; 2 the command line or the configuration is invalid;
3 `catalog diff` found a change.";

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or Ctrl-C; SIGHUP or a change of the file reloads the configuration
    Serve(ConfigArgs),
    /// Report all errors and warnings of a configuration
    Check(CheckArgs),
    /// Show what the gateway would decide about a request, and by which rule, without sending it
    Explain(explain::ExplainArgs),
    /// Create gateway keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Log in to Cal.com for a credential of kind `oauth`, and put its tokens into the token store
    Login(login::LoginArgs),
    /// List credentials and their state, or import and remove tokens
    Credentials(credentials::CredentialsArgs),
    /// Maintain the token store
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// List, compare or rebuild the catalog of Cal.com's operations
    #[command(subcommand)]
    Catalog(catalog::CatalogCommand),
    /// Check whether a running gateway is alive, through its admin listener (for a container's health check)
    Health(health::HealthArgs),
}

/// Arguments that name the configuration.
#[derive(Args)]
struct ConfigArgs {
    /// The configuration file. Without one, the environment is the configuration if `CAL_API_KEY` is set
    #[arg(long, value_name = "FILE", env = "CALGATE_CONFIG", value_parser = OsStringValueParser::new())]
    config: Option<OsString>,
}

/// Arguments that name a configuration whose secrets may be missing.
#[derive(Args)]
struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Do not read the files and variables that contain secrets, so that a machine without them can check the rest
    #[arg(long)]
    without_secrets: bool,
}

impl CheckArgs {
    fn secrets(&self) -> Secrets {
        if self.without_secrets { Secrets::Placeholders } else { Secrets::Read }
    }
}

/// Outcome of a command.
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

/// Writes a command's output to standard output. A reader that has closed its end is not an error.
fn print(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(fault) if fault.kind() != std::io::ErrorKind::BrokenPipe => {
            Outcome::Failed(format!("cannot write to standard output: {fault}"))
        }
        _ => Outcome::Done,
    }
}

/// Runs the command of the command line.
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
        // An empty variable counts as unset.
        if let Some(path) = self.config.as_ref().filter(|path| !path.is_empty()) {
            return ConfigSource::read(Path::new(path), secrets).map_err(misused);
        }
        match from_environment() {
            Some(config) => Ok((config.map_err(misused)?, ConfigSource::Environment)),
            None => Err(Outcome::Misused(
                "calgate: no configuration. Name a file with --config or CALGATE_CONFIG, or set CAL_API_KEY to serve one \
                 app without a file."
                    .to_owned(),
            )),
        }
    }
}
