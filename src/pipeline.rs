//! The request path, from top to bottom.
//!
//! Each stage passes a proof of its decision to the next: a `Caller`, a `RouteMatch`, a `Grant`, a `Permit`, a `Slot`. Only
//! its stage can create a proof. So a request is charged only once it is entitled, and sent only once it is charged.

mod request_check;

use std::borrow::Cow;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::body::Body;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Response, StatusCode, request};

use crate::budget::Slot;
use crate::catalog::version;
use crate::credential::capture::{self, Capture};
use crate::credential::{Selected, UpstreamAuth, is_token_expired, is_token_refused};
use crate::forward::{Download, Upload, UpstreamRequest};
use crate::gateway::{GatewayHandle, Snapshot};
use crate::headers::{self, HINT};
use crate::identify::ConnectionEnds;
use crate::limit::Permit;
use crate::ratelimit::usage_headers::is_body_decisive;
use crate::record::Record;
use crate::refusal::Refusal;
use crate::respond::{self, BodySource, ResponseBody};
use crate::server::ClientConnection;

/// Answers one request of `connection`.
///
/// The future is boxed where it is made: it takes several KiB, and each layer around it would move it once more.
pub fn handle(
    gateway: GatewayHandle,
    connection: &ClientConnection,
    head: request::Parts,
    body: Body,
) -> BoxFuture<'static, Response<ResponseBody>> {
    // The tokens in the response to such a request are nowhere else, so it completes even if the client leaves.
    let must_complete = capture::makes_tokens(&head.method, head.uri.path());
    let answer = Box::pin(answer(gateway, connection.ends(), head, body));
    if must_complete { Box::pin(connection.run_detached(answer)) } else { answer }
}

#[expect(clippy::manual_async_fn, reason = "an async fn would keep the head twice in each request that waits")]
fn answer(
    gateway: GatewayHandle,
    ends: ConnectionEnds,
    head: request::Parts,
    body: Body,
) -> impl Future<Output = Response<ResponseBody>> + Send {
    async move {
        let snapshot = gateway.snapshot();
        let client = snapshot.trusted_proxies.client(ends.peer, &head.headers);
        let mut record = Record::open(gateway.clone(), snapshot.clone(), &head, client);
        let result = {
            // A panic fails one request, and its record reports it.
            let mut served = pin!(AssertUnwindSafe(serve(&snapshot, &head, ends, body, &mut record)).catch_unwind());
            poll_fn(|cx| match served.as_mut().poll(cx) {
                Poll::Pending if gateway.lifecycle.is_stopped() => Poll::Ready(None),
                result => result.map(Some),
            })
            .await
        };
        let result =
            result.map_or_else(|| Err(record.shutdown_refusal()), |result| result.unwrap_or(Err(Refusal::Internal)));
        match result {
            Ok(response) => respond::finish(response, record, head.headers),
            Err(refusal) => {
                record.note_refusal(&refusal);
                let mut response = respond::refusal_response(&refusal, record.template(), record.arrival().1);
                if head.method == Method::HEAD {
                    respond::strip_body(&mut response);
                }
                respond::finish(response, record, head.headers)
            }
        }
    }
}

async fn serve(
    snapshot: &Snapshot,
    head: &request::Parts,
    ends: ConnectionEnds,
    body: Body,
    record: &mut Record,
) -> Result<Response<BodySource>, Refusal> {
    if !record.has_capacity() {
        return Err(Refusal::Overloaded);
    }
    let body_rule = request_check::check(head, &snapshot.bounds)?;
    if head.method == Method::OPTIONS {
        let answer = respond::options_response(snapshot.catalog(), snapshot.unknown_endpoints, &snapshot.cors, head)?;
        record.note_local_response(answer.status());
        return Ok(answer.map(BodySource::from));
    }

    let permitted = permit(snapshot, head, ends, record);
    let Permitted { permit, selected, capture, patience } = permitted
        .map_err(|refusal| snapshot.rate_limits.count_auth_failure(refusal, record.client(), record.arrival().0))?;
    let access = snapshot.credentials.source(selected).obtain(&snapshot.credentials.registry).await?;
    let body = Upload::new(body, body_rule.limit, snapshot.bounds.body);
    // A request for new tokens is sent only when its whole body is here. If the client leaves before, Cal.com receives
    // nothing.
    let may_come_back = access.is_replaceable() || snapshot.upstream.may_be_unprocessed();
    let again = may_come_back.then_some(snapshot.bounds.replay_body_limit);
    let read_first = body_rule.is_read_first.then(|| usize::try_from(body_rule.limit.bytes).unwrap_or(usize::MAX));
    let unproven = body.is_unproven_empty().then_some(0);
    let body = match capture.as_ref().map(|_| usize::MAX).or(again.max(read_first).or(unproven)) {
        Some(most) => body.buffer(most).await?,
        None => body,
    };
    let reserved = snapshot.budget.reserve(&permit, &access, patience).await;
    record.note_pending_charge(permit.pending_charge());
    let mut slot = reserved?;
    record.note_slot(&slot);

    let at = record.note_sent();
    let ask = UpstreamRequest {
        head,
        permit: &permit,
        auth_headers: access.auth_headers(),
        request_id: record.request_id(),
        at,
        may_be_done: record.may_be_done(),
    };
    let Sent { mut answer, access, refused } = send(snapshot, &ask, &access, body, &mut slot, patience).await?;
    record.note_response(&answer, answer.body().started_at(), access.auth_headers().secret());
    if is_body_decisive(answer.status(), answer.headers()) {
        Box::pin(respond::note_edge_limit(&mut answer, &slot)).await;
    }
    if let Some(hint) = version_hint(snapshot, &permit, head, answer.status())? {
        record.note_hint(&hint);
        answer.headers_mut().insert(HINT, hint);
    }
    if refused {
        snapshot.rate_limits.count_rejected_credential(permit.grant().caller(), record.client(), record.arrival().0);
    } else if answer.status().is_success() {
        snapshot.rate_limits.record_accepted_credential(permit.grant(), record.arrival().0);
    }
    respond::scrub(answer, access.auth_headers(), &snapshot.credentials, capture.as_deref(), record.arrival().1).await
}

/// A request that may be sent, with the decisions that precede its charge.
struct Permitted<'a> {
    permit: Permit<'a>,
    selected: Selected<'a>,
    /// What to store of its response.
    capture: Option<Box<Capture>>,
    /// Longest time that the client waits for the budget, if the request states one.
    patience: Option<Duration>,
}

/// Makes all decisions that need no wait: caller, operation, entitlement and rate limit. It is not part of `serve`, so that
/// the future of a waiting request contains none of its variables.
fn permit<'a>(
    snapshot: &'a Snapshot,
    head: &'a request::Parts,
    ends: ConnectionEnds,
    record: &mut Record,
) -> Result<Permitted<'a>, Refusal> {
    let (now, today) = record.arrival();
    let target = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
    snapshot.leaks.check(target, &head.headers, snapshot.upstream.extra_headers())?;
    let caller = snapshot.consumers.identify(&head.headers, record.client(), today)?;
    record.note_caller(&caller, snapshot.rate_limits.status(&caller, now));
    snapshot.keyless.check(&caller, head, ends)?;
    snapshot.rate_limits.check_failures(&caller, record.client(), now)?;
    let matched = snapshot.catalog().match_route(&head.method, head.uri.path(), snapshot.unknown_endpoints)?;
    record.note_route(&matched);
    version::check(headers::api_version(&head.headers).map_err(Refusal::InvalidHeader)?)?;
    let grant = snapshot.entitlements.grant(caller, matched)?;
    record.note_grant(&grant);
    let selected = snapshot.credentials.select(&grant, &head.headers)?;
    let capture = snapshot.credentials.capture(&grant)?;
    let patience = headers::max_wait(&head.headers).map_err(Refusal::InvalidHeader)?;
    let (standing, permit) = snapshot.rate_limits.charge(grant, now);
    record.note_standing(standing);
    Ok(Permitted { permit: permit?, selected, capture, patience })
}

/// Returns the hint for a 404 of Cal.com that may be about the version of the request (FACTS §4).
fn version_hint(
    snapshot: &Snapshot,
    permit: &Permit<'_>,
    head: &request::Parts,
    status: StatusCode,
) -> Result<Option<HeaderValue>, Refusal> {
    let matched = permit.grant().route();
    let Some(endpoint) = matched.endpoint().filter(|_| status == StatusCode::NOT_FOUND) else { return Ok(None) };
    Ok(endpoint.version_hint(snapshot.upstream.api_version(matched, &head.headers)?))
}

/// Cal.com's response, the credential that it answers, and whether Cal.com rejected that credential.
struct Sent<'a> {
    answer: Response<Download>,
    access: Cow<'a, UpstreamAuth>,
    refused: bool,
}

/// Sends a request, and once more with another token if Cal.com rejects the first.
async fn send<'a>(
    snapshot: &Snapshot,
    ask: &UpstreamRequest<'_, '_>,
    access: &'a UpstreamAuth,
    body: Upload,
    slot: &mut Slot,
    patience: Option<Duration>,
) -> Result<Sent<'a>, Refusal> {
    let replay_body = access.is_replaceable().then(|| body.try_clone()).flatten();
    let mut answer = snapshot.upstream.send(ask, body, slot).await?;
    let refused = is_refused(&mut answer, access).await;
    access.note_answered(ask.head, answer.status(), refused);
    if !refused || !access.is_replaceable() {
        return Ok(Sent { answer, access: Cow::Borrowed(access), refused });
    }
    Box::pin(retry_with_new_token(snapshot, ask, access, answer, replay_body, patience)).await
}

/// Returns whether Cal.com rejected the credential of a request. The read of a 403's body is boxed, because it is rare and its
/// future is large.
async fn is_refused(answer: &mut Response<Download>, access: &UpstreamAuth) -> bool {
    is_token_refused(answer.status())
        || answer.status() == StatusCode::FORBIDDEN
            && Box::pin(respond::names_dead_token(answer, access.auth_headers())).await
}

/// Sends a request with another token after Cal.com rejected the first. The caller boxes it, because it is large and rare.
#[expect(clippy::disallowed_methods, reason = "the second attempt starts here")]
async fn retry_with_new_token<'a>(
    snapshot: &Snapshot,
    ask: &UpstreamRequest<'_, '_>,
    access: &'a UpstreamAuth,
    answer: Response<Download>,
    replay_body: Option<Upload>,
    patience: Option<Duration>,
) -> Result<Sent<'a>, Refusal> {
    // Cal.com carried nothing out, because it rejected the credential.
    ask.may_be_done.store(false, Ordering::Relaxed);
    let registry = &snapshot.credentials.registry;
    match (access.replacement(registry, ask.head, answer.status()).await?, replay_body) {
        (None, _) if is_token_expired(answer.status()) => Err(Refusal::CredentialRefused { renewed: false }),
        (None, _) => Ok(Sent { answer, access: Cow::Borrowed(access), refused: true }),
        (Some(_), None) => Err(Refusal::CredentialRefused { renewed: true }),
        (Some(other), Some(body)) => {
            let mut slot = snapshot.budget.reserve_retry(ask.permit, &other, patience).await?;
            let ask = UpstreamRequest { auth_headers: other.auth_headers(), at: Instant::now(), ..*ask };
            let mut answer = snapshot.upstream.send(&ask, body, &mut slot).await?;
            let refused = is_refused(&mut answer, &other).await;
            other.note_retried(ask.head, answer.status(), refused, registry);
            if is_token_expired(answer.status()) {
                return Err(Refusal::CredentialRefused { renewed: false });
            }
            Ok(Sent { answer, access: Cow::Owned(other), refused })
        }
    }
}
