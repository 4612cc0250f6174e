//! Composition root of `calgate serve`: listeners, workers, reload, signals and the drain.
//!
//! Each worker is a thread with its own runtime, listening socket and upstream connections. The workers share the [`Gateway`].
//! A signal starts the drain: the workers accept no more connections and finish the requests in flight.

mod drain;
mod fd_limit;
mod reload;
mod signals;

use std::future::Future;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::handler::Handler;
use axum::response::Response;
use futures_util::FutureExt;
use tokio::runtime::Builder;
use tokio::sync::watch;

pub use reload::{ConfigSource, log_warnings};

use crate::config::startup::StartupConfig;
use crate::gateway::{CapacityPermit, Gateway, GatewayHandle, LifecycleState};
use crate::server::{AcceptLoop, ClientConnection, Listener};
use crate::{admin, pipeline};
use signals::Signals;

/// Maximum open connections of the admin listener, 100. They have their own limit, so that an operator can connect while
/// clients use up theirs.
const MAX_OPERATOR_CONNECTIONS: usize = 100;

/// Handler of the axum application that clients reach.
///
/// It returns the future of the request path, because an `async fn` would keep another copy of the request.
fn proxy(
    State(gateway): State<GatewayHandle>,
    ConnectInfo(connection): ConnectInfo<ClientConnection>,
    request: Request,
) -> impl Future<Output = Response> + Send {
    let (head, body) = request.into_parts();
    pipeline::handle(gateway, &connection, head, body).map(|response| response.map(Body::new))
}

/// Returns a permit for one more client connection, unless `limits.connections` is reached.
fn try_admit(gateway: &Gateway) -> Option<CapacityPermit> {
    let permit = gateway.capacity.try_connect(gateway.snapshot().bounds.connections);
    if permit.is_none() {
        gateway.metrics.connections_refused.inc();
    }
    permit
}

/// Runs the gateway until a signal ends it.
///
/// # Errors
/// Reason why an address cannot be bound or a thread cannot start.
pub fn run(gateway: &Arc<Gateway>, startup: &StartupConfig, source: ConfigSource) -> Result<(), String> {
    gateway.snapshot().start_limit_store()?;
    let listen = &startup.listen;
    fd_limit::fit_limits(gateway, listen.workers);
    let over_limit_replies = Arc::default();
    let listener = Listener::bind("listen.address", &listen.address, listen.workers)?;
    let admin = listen.admin.as_ref().map(|address| Listener::bind("listen.admin", address, 1)).transpose()?;
    let admin_address = admin.as_ref().map_or("off".to_owned(), Listener::address);
    let address = listener.address();
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(gateway.restore_used());
    let mut workers = Vec::new();
    for socket in listener.into_sockets() {
        let (application, admitting) = (proxy.with_state(GatewayHandle::new(gateway)), gateway.clone());
        let accept_loop = AcceptLoop::new(
            application,
            move || try_admit(&admitting),
            gateway,
            &over_limit_replies,
            gateway.lifecycle.subscribe(),
        );
        workers.push(spawn(format!("worker-{}", workers.len()), move || accept_loop.serve(socket))?);
    }
    // The admin listener answers until the process exits, so that an operator can watch the drain.
    let (_never, running) = watch::channel(LifecycleState::Running);
    for socket in admin.map(Listener::into_sockets).unwrap_or_default() {
        let operators = Arc::default();
        let try_admit = move || CapacityPermit::try_acquire(&operators, MAX_OPERATOR_CONNECTIONS);
        let accept_loop =
            AcceptLoop::new(admin::application(gateway), try_admit, gateway, &over_limit_replies, running.clone());
        spawn("admin".to_owned(), move || accept_loop.serve(socket))?;
    }
    if let Some(refresher) = gateway.refresher.clone() {
        spawn("refresher".to_owned(), move || refresher.run())?;
    }
    // From the line "calgate is listening" on, each signal has its effect.
    let mut signals = runtime.block_on(async { Signals::listen() })?;
    tracing::info!(address, admin = admin_address, workers = workers.len(), "calgate is listening");
    runtime.block_on(reload::run_until_shutdown(gateway, source, startup, &mut signals));
    let in_flight = gateway.capacity.in_flight();
    tracing::info!(in_flight, "draining: no new connections; finishing requests in flight");
    gateway.lifecycle.enter(LifecycleState::Draining);
    if let Some(refresher) = &gateway.refresher {
        refresher.drain();
    }
    runtime.block_on(drain::drain(gateway, workers, &mut signals.shutdown));
    runtime.block_on(gateway.record_used());
    runtime.block_on(async { gateway.snapshot().stop_limit_store().await });
    tracing::info!(in_flight = gateway.capacity.in_flight(), "calgate has stopped");
    if let Some(log) = &gateway.access_log {
        log.flush(Duration::from_secs(2));
    }
    Ok(())
}

/// Starts a thread with its own runtime.
fn spawn<F: Future<Output = ()>>(
    name: String,
    serve: impl FnOnce() -> F + Send + 'static,
) -> Result<thread::JoinHandle<()>, String> {
    let body = move || match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            runtime.block_on(serve());
            // This drops the remaining tasks and does not wait for name lookups.
            runtime.shutdown_background();
        }
        Err(fault) => tracing::error!(%fault, "cannot start a worker"),
    };
    thread::Builder::new().name(name).spawn(body).map_err(|e| format!("cannot start a thread: {e}"))
}
