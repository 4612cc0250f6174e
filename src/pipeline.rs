//! THE request path, top to bottom.
//!
//! Each stage hands the next one a proof of what it decided: a `Caller`, a `RouteMatch` endpoint, a `Grant`, a `Selected`, a
//! `Permit`. None of them can be made elsewhere, so no request is charged before it is entitled, or sent before it is charged.

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
use futures_util::future::Either;
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
/// This function and `answer` return their futures and are not `async`: an `async fn` would keep the request twice.
pub fn handle(
    gateway: GatewayHandle,
    connection: &ClientConnection,
    head: request::Parts,
    body: Body,
) -> impl Future<Output = Response<ResponseBody>> + Send + use<> {
    // The tokens in the response to such a request are nowhere else, so it completes even if the client leaves.
    let must_complete = capture::makes_tokens(&head.method, head.uri.path());
    let answer = answer(gateway, connection.ends(), head, body);
    if must_complete { Either::Left(connection.run_detached(answer)) } else { Either::Right(answer) }
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
        let result = result.map_or_else(|| Err(record.stopping()), |result| result.unwrap_or(Err(Refusal::Internal)));
        match result {
            Ok(response) => respond::finish(response, record, head.headers),
            Err(refusal) => {
                record.note_refusal(&refusal);
                let mut response = respond::refusal(&refusal, record.template(), record.arrival().1);
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
    if !record.is_admitted() {
        return Err(Refusal::Overloaded);
    }
    let body_rule = request_check::check(head, &snapshot.bounds)?;
    if head.method == Method::OPTIONS {
        let answer = respond::options(snapshot.catalog(), snapshot.unknown_endpoints, &snapshot.cors, head)?;
        record.note_answered_here(answer.status());
        return Ok(answer.map(BodySource::from));
    }

    let permitted = permit(snapshot, head, ends, record);
    let Permitted { permit, selected, capture, patience } = permitted
        .map_err(|refusal| snapshot.rate_limits.count_auth_failure(refusal, record.client(), record.arrival().0))?;
    let access = snapshot.credentials.source(selected).obtain(&snapshot.credentials.registry).await?;
    let body = Upload::new(body, body_rule.limit, snapshot.bounds.body);
    // What makes new tokens is sent when all of it is here: of a caller who leaves before that, Cal.com hears nothing.
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
    let Answered { mut answer, access, refused } = send(snapshot, &ask, &access, body, &mut slot, patience).await?;
    record.note_answer(&answer, answer.body().started_at(), access.auth_headers().secret());
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
    respond::inspect(answer, access.auth_headers(), &snapshot.credentials, capture.as_deref(), record.arrival().1).await
}

/// A request that may be sent, and what was settled about it before it was charged.
struct Permitted<'a> {
    permit: Permit<'a>,
    selected: Selected<'a>,
    /// What is to be kept of its answer.
    capture: Option<Box<Capture>>,
    /// How long the caller waits for the budget, where it says.
    patience: Option<Duration>,
}

/// What is decided at once: who asks, what for, whether they may, and whether they may now. It is no part of `serve`, so
/// that a request which waits carries nothing of it but what it needs.
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

/// The hint for a 404 of Cal.com's that may be about the version of the request (FACTS §4).
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

/// Cal.com's response, as whom the request was sent in the end, and whether Cal.com refused that credential.
struct Answered<'a> {
    answer: Response<Download>,
    access: Cow<'a, UpstreamAuth>,
    refused: bool,
}

/// Asks Cal.com, and once more where it refuses a token that another one can stand for. Answers as whom it was asked in
/// the end.
async fn send<'a>(
    snapshot: &Snapshot,
    ask: &UpstreamRequest<'_, '_>,
    access: &'a UpstreamAuth,
    body: Upload,
    slot: &mut Slot,
    patience: Option<Duration>,
) -> Result<Answered<'a>, Refusal> {
    let spare = access.is_replaceable().then(|| body.try_clone()).flatten();
    let mut answer = snapshot.upstream.send(ask, body, slot).await?;
    let refused = is_refused(&mut answer, access).await;
    access.note_answered(ask.head, answer.status(), refused);
    if !refused || !access.is_replaceable() {
        return Ok(Answered { answer, access: Cow::Borrowed(access), refused });
    }
    Box::pin(send_as_another(snapshot, ask, access, answer, spare, patience)).await
}

/// Returns whether Cal.com refused the credential of a request. Reading the body of a 403 for that is rare, and boxed.
async fn is_refused(answer: &mut Response<Download>, access: &UpstreamAuth) -> bool {
    is_token_refused(answer.status())
        || answer.status() == StatusCode::FORBIDDEN
            && Box::pin(respond::names_dead_token(answer, access.auth_headers())).await
}

/// Asks once more, after `answer` to the first time. Boxed where it is called, for it is large and rare.
#[expect(clippy::disallowed_methods, reason = "the second attempt starts here")]
async fn send_as_another<'a>(
    snapshot: &Snapshot,
    ask: &UpstreamRequest<'_, '_>,
    access: &'a UpstreamAuth,
    answer: Response<Download>,
    spare: Option<Upload>,
    patience: Option<Duration>,
) -> Result<Answered<'a>, Refusal> {
    // Cal.com carried nothing out, because it rejected the credential.
    ask.may_be_done.store(false, Ordering::Relaxed);
    let registry = &snapshot.credentials.registry;
    match (access.replacement(registry, ask.head, answer.status()).await?, spare) {
        (None, _) if is_token_expired(answer.status()) => Err(Refusal::CredentialRefused { renewed: false }),
        (None, _) => Ok(Answered { answer, access: Cow::Borrowed(access), refused: true }),
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
            Ok(Answered { answer, access: Cow::Owned(other), refused })
        }
    }
}
