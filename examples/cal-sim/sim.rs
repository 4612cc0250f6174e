//! Simulation of the Cal.com API v2. It follows the behaviour of Cal.com, not that of calgate.
//!
//! It answers each operation of the catalog with what it received. It checks credentials, counts and blocks requests, and issues
//! and ends tokens. A program or a test starts, inspects and disturbs it through [`Sim`].

// Paths are given because the test binary takes this file in from elsewhere.
#[path = "sim/answer.rs"]
mod answer;
#[path = "sim/authentication.rs"]
mod authentication;
#[path = "sim/certificates.rs"]
pub mod certificates;
#[path = "sim/clock.rs"]
mod clock;
#[path = "sim/jwt.rs"]
mod jwt;
#[path = "sim/limiter.rs"]
pub mod limiter;
#[path = "sim/operations.rs"]
pub mod operations;
#[path = "sim/options.rs"]
pub mod options;
#[path = "sim/presented.rs"]
mod presented;
#[path = "sim/routes.rs"]
mod routes;
#[path = "sim/seen.rs"]
mod seen;
#[path = "sim/server.rs"]
mod server;
#[path = "sim/service.rs"]
mod service;
#[path = "sim/state.rs"]
mod state;
#[path = "sim/token_operations.rs"]
mod token_operations;
#[path = "sim/tokens.rs"]
mod tokens;
#[path = "sim/trackers.rs"]
mod trackers;
#[path = "sim/wishes.rs"]
mod wishes;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use calgate::catalog::Catalog;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

pub use options::Options;
pub use seen::Seen;
pub use state::TokenCounts;
pub use tokens::Pair;

use state::State;
use tokens::Holder;

/// A running simulation. Dropping it stops it.
#[derive(Debug)]
pub struct Sim {
    state: Arc<State>,
    address: SocketAddr,
    ca_pem: Option<String>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sim {
    /// Starts it, on a thread and a runtime of its own.
    ///
    /// # Errors
    /// Why it cannot listen.
    pub fn start(options: Options) -> io::Result<Self> {
        // Read before the first request, which would have to wait for it.
        let _ = Catalog::built_in();
        let runtime = Builder::new_multi_thread().worker_threads(options.workers.max(1)).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(options.listen))?;
        let address = listener.local_addr()?;
        let secured = options.tls.then(|| certificates::make(address.ip())).transpose()?;
        let (tls, ca_pem) = secured.map(|(config, pem)| (TlsAcceptor::from(config), pem)).unzip();
        let state = Arc::new(State::new(options));
        let (stop, stopped) = oneshot::channel();
        let serving = server::serve(state.clone(), listener, tls);
        let thread = std::thread::spawn(move || until(&runtime, serving, stopped));
        Ok(Self { state, address, ca_pem, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address as `[upstream] base_url` takes it.
    pub fn base_url(&self) -> String {
        let scheme = if self.ca_pem.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// With TLS: the certificate of its authority.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// The requests so far, in the order of their arrival.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.log.all()
    }

    /// How many requests have arrived since the start or since [`Self::forget`].
    pub fn seen_count(&self) -> usize {
        self.state.log.count()
    }

    /// Forgets the requests so far. Counters of limits and tokens go on.
    pub fn forget(&self) {
        self.state.log.forget();
    }

    /// Answers of 429 so far.
    pub fn rate_limited(&self) -> u64 {
        self.state.trackers.refused()
    }

    /// How the token operations have gone so far.
    pub fn token_counts(&self) -> TokenCounts {
        token_operations::counts(&self.state)
    }

    /// Puts its clock ahead: windows, blocks and tokens end earlier.
    pub fn advance(&self, by: Duration) {
        self.state.clock.advance(by);
    }

    /// Down, it closes every connection at once and answers nothing.
    pub fn set_down(&self, down: bool) {
        self.state.down.send_replace(down);
    }

    /// The next so many token operations take effect, but their connection is closed without an answer.
    pub fn lose_next_token_answers(&self, count: u32) {
        self.state.answers_to_lose.store(count, Ordering::Relaxed);
    }

    /// A new managed user of a platform client, as if it had been made by a request: its id and its pair.
    pub fn new_managed_user(&self, client: &str) -> (u64, Pair) {
        token_operations::new_managed_user(&self.state, client, self.state.clock.now())
    }

    /// A new pair for an OAuth client, as if a code had been exchanged.
    pub fn new_oauth_grant(&self, client: &str) -> Pair {
        let holder = Holder::OAuth { client: client.to_owned() };
        self.state.tokens().issue(&holder, self.state.clock.now())
    }

    /// Makes an access token, refresh token or API key unknown.
    pub fn revoke(&self, secret: &str) {
        self.state.api_keys().remove(secret);
        self.state.tokens().revoke(secret);
    }
}

/// Serves until it is told to stop, or its handle is gone.
fn until(runtime: &Runtime, serving: impl Future<Output = ()>, stopped: oneshot::Receiver<()>) {
    runtime.block_on(async {
        tokio::select! {
            () = serving => {}
            _ = stopped => {}
        }
    });
}

impl Drop for Sim {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
