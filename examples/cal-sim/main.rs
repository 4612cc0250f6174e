//! Runs a simulated Cal.com, which needs no account. `cargo run --example cal-sim -- --help` lists its options.

#![expect(clippy::disallowed_methods, reason = "a server of its own: it keeps time and starts tasks")]

#[path = "sim.rs"]
#[allow(dead_code, unreachable_pub, reason = "the program and the tests each use a part")]
mod sim;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use sim::Sim;
use sim::options::{
    Credentials, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, DEMO_OAUTH_CLIENT_ID, DEMO_OAUTH_SECRET, DEMO_PUBLIC_CLIENT_ID,
    Limits, Options, TokenRules,
};
use tokio::signal::unix::{SignalKind, signal};

/// Help text about the query parameters of `sim/wishes.rs`.
const WISHES: &str = "Query parameters of a request control its response:
  sim_body=65536    length of the body in bytes; sim_pause_ms=50: pause before each 16 KiB
  sim_delay_ms=200  delay of the response
  sim_status=503    status; sim_edge=403: status of the edge in front of Cal.com
  sim_forbidden=1   403 that repeats the bearer token
  sim_headers=1     list of the header fields that arrived, without credentials";

/// A simulated Cal.com API v2
#[derive(Parser)]
#[command(after_help = WISHES)]
struct Arguments {
    /// Address to listen on; port 0 means a free port
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Use HTTPS, with a certificate of an authority created at each start
    #[arg(long)]
    tls: bool,
    /// File for the certificate of that authority
    #[arg(long, value_name = "FILE", requires = "tls")]
    ca_out: Option<PathBuf>,
    /// API key to accept instead of the default one; may be repeated
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,
    /// Requests per window of an API key
    #[arg(long, value_name = "N", default_value_t = 120)]
    limit: u32,
    /// Requests per window of an access token or client id
    #[arg(long, value_name = "N", default_value_t = 500)]
    other_limit: u32,
    /// Neither count nor limit
    #[arg(long)]
    unlimited: bool,
    /// Length of a window
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    window: Duration,
    /// Length of a block
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    block: Duration,
    /// Prolong a window with its old count if a request arrives in the millisecond of its end
    #[arg(long)]
    quirk: bool,
    /// Requests per minute that another client sends with each credential
    #[arg(long, value_name = "N", default_value_t = 0)]
    foreign: u32,
    /// Latency of each response
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time)]
    latency: Duration,
    /// Maximum random addition to the latency
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time)]
    jitter: Duration,
    /// Timeout of a connection without a request
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time)]
    keep_alive: Duration,
    /// Lifetime of access tokens (default: 30 minutes for OAuth, 60 for managed users)
    #[arg(long, value_name = "TIME", value_parser = time)]
    token_life: Option<Duration>,
    /// Number of worker threads
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: usize,
}

fn time(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    parsed.ok_or_else(|| "write it as 250ms, 30s, 5m or 1h".to_owned())
}

impl Arguments {
    fn options(&self) -> Options {
        let only = |limit| if self.unlimited { Vec::new() } else { vec![("Default".to_owned(), limit)] };
        let (mut credentials, mut tokens) = (Credentials::default(), TokenRules::default());
        if !self.api_key.is_empty() {
            credentials.api_keys.clone_from(&self.api_key);
        }
        if let Some(life) = self.token_life {
            (tokens.oauth_access, tokens.managed_access) = (life, life);
        }
        Options {
            listen: self.listen,
            tls: self.tls,
            workers: self.workers,
            keep_alive: self.keep_alive,
            latency: self.latency,
            jitter: self.jitter,
            keep_seen: 0,
            limits: Limits {
                window: self.window,
                block: self.block,
                api_key: only(self.limit),
                other: only(self.other_limit),
                new_api_key: only(self.limit.min(120)),
                quirk: self.quirk,
                foreign_per_minute: self.foreign,
                ..Limits::default()
            },
            credentials,
            tokens,
            forbidden: false,
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("cal-sim: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> std::io::Result<()> {
    let options = arguments.options();
    let key = options.credentials.api_keys.first().cloned().unwrap_or_default();
    let sim = Sim::start(options)?;
    if let (Some(file), Some(pem)) = (&arguments.ca_out, sim.ca_pem()) {
        std::fs::write(file, pem)?;
    }
    println!("A simulated Cal.com listens at {}", sim.base_url());
    println!("  API key           {key}");
    println!("  platform client   {DEMO_CLIENT_ID}  {DEMO_CLIENT_SECRET}");
    println!("  OAuth client      {DEMO_OAUTH_CLIENT_ID}  {DEMO_OAUTH_SECRET}");
    println!("  public client     {DEMO_PUBLIC_CLIENT_ID}  (PKCE)");
    println!("Ctrl-C ends it.");
    wait_for_the_end()?;
    println!("\n{} requests, {} of them answered 429", sim.seen_count(), sim.rate_limited());
    Ok(())
}

/// Waits for SIGINT or SIGTERM.
fn wait_for_the_end() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminated.recv() => Ok(()),
        }
    })
}
