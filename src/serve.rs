//! Composition root of `calgate serve`: listeners, workers, reload, signals and the drain.
//!
//! One thread per worker, each with a runtime, a listener and upstream connections of its own; what they share is behind
//! an `Arc`. A signal starts the drain: no more connections are accepted, requests in flight end.

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
use tokio::sync::watch as channel;

pub use reload::{ConfigSource, log_warnings};

use crate::config::startup::StartupConfig;
use crate::gateway::{CapacityPermit, Gateway, GatewayHandle, LifecycleState};
use crate::server::{ClientConnection, Doorway, Listener};
use crate::{admin, pipeline};
use signals::Stop;

/// Maximum open connections of operators, 100. They do not count with those of clients, so that a flood of clients can be
/// watched.
const MAX_OPERATORS: usize = 100;

/// Answers the requests of clients: the entry of the axum application that they reach.
///
/// It is a function that returns the future of the request path: an `async fn` would keep a copy of the request beside it.
fn proxy(
    State(gateway): State<GatewayHandle>,
    ConnectInfo(connection): ConnectInfo<ClientConnection>,
    request: Request,
) -> impl Future<Output = Response> + Send {
    let (head, body) = request.into_parts();
    pipeline::handle(gateway, &connection, head, body).map(|response| response.map(Body::new))
}

/// Admits a client's connection.
fn try_admit(gateway: &Gateway) -> Option<CapacityPermit> {
    let place = gateway.capacity.try_connect(gateway.snapshot().bounds.connections);
    if place.is_none() {
        gateway.metrics.connections_refused.inc();
    }
    place
}

/// Serves until a signal ends it.
///
/// # Errors
/// What kept it from listening or from starting its threads.
pub fn run(gateway: &Arc<Gateway>, startup: &StartupConfig, source: ConfigSource) -> Result<(), String> {
    gateway.snapshot().start_limit_store()?;
    let listen = &startup.listen;
    fd_limit::make_room(gateway, listen.workers);
    let turned_away = Arc::default();
    let listener = Listener::bind("listen.address", &listen.address, listen.workers)?;
    let admin = listen.admin.as_ref().map(|address| Listener::bind("listen.admin", address, 1)).transpose()?;
    let admin_address = admin.as_ref().map_or("off".to_owned(), Listener::address);
    let address = listener.address();
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(gateway.restore_used());
    let mut workers = Vec::new();
    for socket in listener.into_sockets() {
        let (application, admitting) = (proxy.with_state(GatewayHandle::new(gateway)), gateway.clone());
        let doorway = Doorway::new(
            application,
            move || try_admit(&admitting),
            gateway,
            &turned_away,
            gateway.lifecycle.subscribe(),
        );
        workers.push(spawn(format!("worker-{}", workers.len()), move || doorway.serve(socket))?);
    }
    // The admin listener answers until the process is gone, so that a drain can be watched.
    let (_never, serving) = channel::channel(LifecycleState::Running);
    for socket in admin.map(Listener::into_sockets).unwrap_or_default() {
        let operators = Arc::default();
        let try_admit = move || CapacityPermit::try_acquire(&operators, MAX_OPERATORS);
        let doorway = Doorway::new(admin::application(gateway), try_admit, gateway, &turned_away, serving.clone());
        spawn("admin".to_owned(), move || doorway.serve(socket))?;
    }
    if let Some(keeper) = gateway.keeper.clone() {
        spawn("keeper".to_owned(), move || keeper.work())?;
    }
    tracing::info!(address, admin = admin_address, workers = workers.len(), "calgate is listening");
    let mut stop = runtime.block_on(async { Stop::listen() })?;
    runtime.block_on(reload::until_told_to_stop(gateway, source, startup, &mut stop))?;
    tracing::info!(in_flight = gateway.capacity.in_flight(), "draining: no new connections, requests in flight end");
    gateway.lifecycle.enter(LifecycleState::Draining);
    if let Some(keeper) = &gateway.keeper {
        keeper.drain();
    }
    runtime.block_on(drain::wait(gateway, workers, &mut stop));
    runtime.block_on(gateway.record_used());
    runtime.block_on(async { gateway.snapshot().stop_limit_store().await });
    tracing::info!(in_flight = gateway.capacity.in_flight(), "calgate has stopped");
    if let Some(log) = &gateway.access_log {
        log.flush(Duration::from_secs(2));
    }
    Ok(())
}

/// Starts a thread with a runtime of its own.
fn spawn<F: Future<Output = ()>>(
    name: String,
    serve: impl FnOnce() -> F + Send + 'static,
) -> Result<thread::JoinHandle<()>, String> {
    let body = move || match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            runtime.block_on(serve());
            // What it still has in hand is dropped; names that are being looked up are not waited for.
            runtime.shutdown_background();
        }
        Err(fault) => tracing::error!(%fault, "a worker could not start"),
    };
    thread::Builder::new().name(name).spawn(body).map_err(|e| format!("a thread could not be started: {e}"))
}
