//! Simulation of the Cal.com API v2. It follows the behaviour of Cal.com, not that of calgate.
//!
//! It answers each operation of the catalog with what it received. It checks credentials, counts and blocks requests, and issues
//! and ends tokens. A program or a test starts, inspects and disturbs it through [`Sim`].

// The paths are explicit, because the test binary includes this file from another folder.
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

/// Handle of a running simulation. Dropping it stops the simulation.
#[derive(Debug)]
pub struct Sim {
    state: Arc<State>,
    address: SocketAddr,
    ca_pem: Option<String>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sim {
    /// Starts the simulation on a separate thread and runtime.
    ///
    /// # Errors
    /// The reason why it cannot listen.
    pub fn start(options: Options) -> io::Result<Self> {
        // Parses the catalog now, so that the first request does not wait for it.
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

    /// Returns the address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the address in the form of `[upstream] base_url`.
    pub fn base_url(&self) -> String {
        let scheme = if self.ca_pem.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Returns the certificate of the authority, if TLS is on.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Returns the requests so far, in the order of their arrival.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.log.all()
    }

    /// Returns the number of requests since the start or since [`Self::forget`].
    pub fn seen_count(&self) -> usize {
        self.state.log.count()
    }

    /// Forgets the requests so far. The counters of limits and tokens continue.
    pub fn forget(&self) {
        self.state.log.forget();
    }

    /// Returns the number of 429 responses so far.
    pub fn rate_limited(&self) -> u64 {
        self.state.trackers.refused()
    }

    /// Returns the counts of token operations so far.
    pub fn token_counts(&self) -> TokenCounts {
        token_operations::counts(&self.state)
    }

    /// Advances the clock, so that windows, blocks and tokens end earlier.
    pub fn advance(&self, by: Duration) {
        self.state.clock.advance(by);
    }

    /// Simulates an outage or ends it. During an outage, the simulation closes every connection at once.
    pub fn set_down(&self, down: bool) {
        self.state.down.send_replace(down);
    }

    /// Makes the next `count` token operations take effect, but closes their connections without a response.
    pub fn lose_next_token_answers(&self, count: u32) {
        self.state.answers_to_lose.store(count, Ordering::Relaxed);
    }

    /// Creates a managed user of a platform client, like a request would. Returns its id and pair.
    pub fn new_managed_user(&self, client: &str) -> (u64, Pair) {
        token_operations::new_managed_user(&self.state, client, self.state.clock.now())
    }

    /// Issues a pair for an OAuth client, like the exchange of a code would.
    pub fn new_oauth_grant(&self, client: &str) -> Pair {
        let holder = Holder::OAuth { client: client.to_owned() };
        self.state.tokens().issue(&holder, self.state.clock.now())
    }

    /// Revokes an access token, refresh token or API key.
    pub fn revoke(&self, secret: &str) {
        self.state.api_keys().remove(secret);
        self.state.tokens().revoke(secret);
    }
}

/// Serves until the handle requests a stop or is dropped.
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
