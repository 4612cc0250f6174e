//! Admin API for operators: health, metrics and `explain`. It has its own listener.

use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;

use crate::explain::{Client, ExplainRequest, Explanation, PassthroughKind, explain};
use crate::gateway::{Gateway, LifecycleState};
use crate::limit_store::circuit_breaker::BreakerState as StoreState;
use crate::server::ClientConnection;
use crate::telemetry::Gauges;

/// Media type of the OpenMetrics text format.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Response to a request whose `Host` is not a name of the listener. A web page may have sent it by DNS rebinding.
const FOREIGN_HOST: &str = "Host must be a loopback name, the address of this listener or an entry of listen.hosts\n";

/// Creates the axum application that operators reach.
pub fn application(gateway: &Arc<Gateway>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/explain", post(explain_request))
        .layer(RequestBodyLimitLayer::new(16 * 1024))
        .layer(CatchPanicLayer::new())
        .layer(from_fn_with_state(gateway.clone(), limit_body_time))
        .layer(from_fn_with_state(gateway.clone(), guard_host))
        .with_state(gateway.clone())
}

/// Middleware that rejects a request whose `Host` is not a name of the listener.
async fn guard_host(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(connection): ConnectInfo<ClientConnection>,
    request: Request,
    next: Next,
) -> Response {
    let (head, body) = request.into_parts();
    if gateway.snapshot().keyless.hosts().check(&head, connection.ends().local).is_err() {
        return (StatusCode::MISDIRECTED_REQUEST, FOREIGN_HOST).into_response();
    }
    next.run(Request::from_parts(head, body)).await
}

/// Middleware that rejects a request whose body takes longer than `limits.body`. Only reading a body takes time here.
async fn limit_body_time(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let limit = gateway.snapshot().bounds.body;
    timeout(limit, next.run(request)).await.unwrap_or_else(|_| {
        let message = format!("the request's body did not arrive within {limit:?} (limits.body)\n");
        (StatusCode::REQUEST_TIMEOUT, message).into_response()
    })
}

/// Reports whether the gateway accepts requests. An unhealthy credential is listed, but the gateway stays ready for the others.
async fn readyz(State(gateway): State<Arc<Gateway>>) -> impl IntoResponse {
    if gateway.lifecycle.current() != LifecycleState::Running {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    }
    let unhealthy = gateway.unhealthy_credentials();
    let first = match gateway.snapshot().limit_store_state() {
        None | Some(StoreState::Closed) => "ready\n",
        Some(StoreState::Open { .. }) => "degraded: the limit store does not answer\n",
        Some(StoreState::Recovering { .. }) => "degraded: the limit store is back; replaying the requests in flight\n",
    };
    let lines = unhealthy.iter().map(|(name, state)| format!("credential {name}: {state}\n"));
    (StatusCode::OK, std::iter::once(first.to_owned()).chain(lines).collect())
}

async fn metrics(State(gateway): State<Arc<Gateway>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS_TYPE)], gateway.metrics.encode(&gauges(&gateway)))
}

/// Reads the values that metrics report as they are now.
fn gauges(gateway: &Gateway) -> Gauges {
    let snapshot = gateway.snapshot();
    Gauges {
        in_flight: gateway.capacity.in_flight(),
        connections: gateway.capacity.connections(),
        budgets: snapshot.budget.statuses(),
        credentials: snapshot.credentials.registry.states(),
        limit_store: snapshot.limit_store.as_ref().map(|store| store.stats()),
    }
}

/// Body of a request to `/explain`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainBody {
    consumer: Option<String>,
    /// `anonymous` or the kind of a passthrough credential, instead of a consumer.
    client: Option<String>,
    method: String,
    path: String,
    managed_user: Option<String>,
}

/// Explains what the gateway would decide about a request now.
async fn explain_request(State(gateway): State<Arc<Gateway>>, Json(body): Json<ExplainBody>) -> Response {
    let snapshot = gateway.snapshot();
    let reject = |message: &str| (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": message }))).into_response();
    let passthrough_kind =
        |name: &str| PassthroughKind::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
    let client = match (&body.consumer, body.client.as_deref()) {
        (Some(name), None) => match snapshot.consumers.find_by_name(name) {
            Some(consumer) => Client::Consumer(consumer),
            None => return reject("unknown consumer"),
        },
        (None, Some("anonymous")) => Client::Anonymous,
        (None, Some(name)) => match passthrough_kind(name) {
            Some(kind) => Client::Passthrough(kind),
            None => return reject("unknown client: use anonymous, api-key, token or platform-client"),
        },
        _ => return reject("set either consumer or client"),
    };
    let Ok(method) = body.method.parse::<Method>() else { return reject("invalid method") };
    let request = ExplainRequest { method: &method, target: &body.path, managed_user: body.managed_user.as_deref() };
    let explanation = explain(&snapshot, client, request);
    let states = snapshot.credentials.registry.states();
    let state_of = |name: &str| states.iter().find(|(credential, _)| credential == name).map(|(_, state)| *state);
    let credential_state = explanation.credential.and_then(state_of);
    let store_lost = snapshot.limit_store.as_ref().map(|store| !store.is_enabled());
    Json(Explanation { credential_state, store_lost, ..explanation }).into_response()
}
