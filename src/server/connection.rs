//! One client connection: detects the protocol, drives hyper or h2, enforces time limits and drains.

#![expect(clippy::disallowed_methods, reason = "the time limits of a connection start in this module")]

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::extract::ConnectInfo;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use http_body::Body as _;
use http_body_util::Either;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use super::HttpService;
use super::framing::max_head;
use super::hangup::ClientIo;
use super::http2::{self, Http2Body};
use super::opening::{self, Incomplete, Opening};
use crate::config::limits::Bounds;
use crate::gateway::{Gateway, LifecycleState};
use crate::identify::ConnectionEnds;
use crate::record::Record;
use crate::refusal::Refusal;
use crate::respond;
use crate::server::accept::Admission;
use crate::server::activity::{ConnectionActivity, TimeoutAction};
use crate::server::body::{ReceivedBody, TrackedBody, request_body};
use crate::server::detached::run_detached;
use crate::server::transport::{TRUNCATED_HEAD, Transport, TransportParts};
use crate::server::wake_gate::WakeGated;
use crate::untrusted::sanitize;

/// Time after the start of the drain in which an idle connection may still send a request, 200 ms. The request may already be
/// on its way.
const DRAIN_GRACE: Duration = Duration::from_millis(200);

/// Maximum time of a lingering close, 1 s.
const LINGER: Duration = Duration::from_secs(1);

/// The connection of a request. The server puts it into the request's extensions for axum's `ConnectInfo`.
#[derive(Clone)]
pub struct ClientConnection(Arc<ConnectionContext>);

struct ConnectionContext {
    ends: ConnectionEnds,
    /// The tasks that the worker waits for when it ends.
    tasks: TaskTracker,
    lifecycle: watch::Receiver<LifecycleState>,
}

impl ClientConnection {
    pub(super) fn new(ends: ConnectionEnds, tasks: TaskTracker, lifecycle: watch::Receiver<LifecycleState>) -> Self {
        Self(Arc::new(ConnectionContext { ends, tasks, lifecycle }))
    }

    /// Returns the addresses of both ends.
    pub fn ends(&self) -> ConnectionEnds {
        self.0.ends
    }

    /// Runs `work` to its end, even if the client leaves. The drain waits for it.
    pub(crate) fn run_detached<F>(&self, work: F) -> impl Future<Output = F::Output> + Send + use<F>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        run_detached(work, &self.0.tasks, self.0.lifecycle.clone())
    }
}

/// Driver of one connection.
pub(super) struct ConnectionDriver<S> {
    pub(super) service: S,
    pub(super) gateway: Arc<Gateway>,
    pub(super) lifecycle: watch::Receiver<LifecycleState>,
    pub(super) connection: ClientConnection,
    pub(super) admission: Admission,
}

impl<S: HttpService> ConnectionDriver<S> {
    pub(super) async fn serve<T: ClientIo>(self, mut stream: T) {
        if !self.admission.is_within_limit {
            return self.write_refusal(stream, &Refusal::Overloaded).await;
        }
        let limits = self.gateway.snapshot().bounds.clone();
        let mut lifecycle = self.lifecycle.clone();
        let drained = async {
            let _ = lifecycle.wait_for(|state| *state >= LifecycleState::Draining).await;
            sleep(DRAIN_GRACE).await;
        };
        let first = tokio::select! {
            biased;
            first = opening::detect_protocol(&mut stream, &limits) => first,
            () = drained => return,
        };
        let Some(Opening { mut bytes, is_http2 }) = first else { return };
        if is_http2 {
            // Boxed, so that an idle connection needs little memory.
            return Box::pin(self.serve_http2(stream, bytes.freeze(), &limits)).await;
        }
        let began = Instant::now();
        let refusal = match opening::read_head(&mut stream, &mut bytes, began, &limits).await {
            Ok(()) => return Box::pin(self.serve_http1(stream, bytes.freeze(), began, &limits)).await,
            Err(Incomplete::Late) => Refusal::late_head(limits.head),
            Err(Incomplete::Truncated) => TRUNCATED_HEAD,
            Err(Incomplete::Broken) => return,
        };
        self.write_refusal(stream, &refusal).await;
    }

    async fn serve_http2<T: ClientIo>(&self, stream: T, first: Bytes, limits: &Bounds) {
        let activity = Arc::new(ConnectionActivity::new(Instant::now(), true));
        let io = Transport::new(stream, first, activity.clone(), limits);
        // h2 answers a larger list with a bare status. The factor covers the 32 bytes that each field adds (RFC 9113 §6.5.2).
        let max_list = u32::try_from(max_head(limits).saturating_mul(2)).unwrap_or(u32::MAX);
        let answer = |request| self.answer(&activity, Http2Body::from_request(request).map(Either::Right));
        let (stopped, tasks) = (Arc::new(Notify::new()), self.connection.0.tasks.clone());
        let mut connection = std::pin::pin!(http2::Connection::new(io, max_list, answer, stopped.clone(), tasks));
        let wake_streams = || stopped.notify_waiters();
        self.drive(connection.as_mut(), &activity, http2::Connection::graceful_shutdown, wake_streams).await;
    }

    async fn serve_http1<T: ClientIo>(&self, stream: T, first: Bytes, began: Instant, limits: &Bounds) {
        let activity = Arc::new(ConnectionActivity::new(began, false));
        let io = Transport::new(stream, first, activity.clone(), limits);
        let mut builder = http1::Builder::new();
        // `framing` rejects larger heads first, with a message.
        builder.timer(TokioTimer::new()).header_read_timeout(None).max_header_size(2 * max_head(limits));
        let service = service_fn(|request: Request<_>| {
            self.answer(&activity, request.map(Either::Left)).map(Ok::<_, Infallible>)
        });
        let mut connection = builder.serve_connection(TokioIo::new(io), service);
        // hyper polls the request with the connection, so there is no other task to wake.
        let reason =
            self.drive(Pin::new(&mut connection), &activity, http1::Connection::graceful_shutdown, || {}).await;
        let TransportParts { stream, refusal, is_peer_gone } = connection.into_parts().io.into_inner().into_parts();
        let late = (reason == CloseReason::LateHead).then(|| Refusal::late_head(self.gateway.snapshot().bounds.head));
        match refusal.or(late) {
            Some(refusal) => self.write_refusal(stream, &refusal).await,
            None if activity.had_body() && !is_peer_gone => linger(stream).await,
            None => {}
        }
    }

    /// Answers one request.
    fn answer(
        &self,
        activity: &Arc<ConnectionActivity>,
        request: Request<ReceivedBody>,
    ) -> impl Future<Output = Response<TrackedBody<S::Body>>> + Send + use<S> {
        let exchange = activity.start_exchange(!request.body().is_end_stream());
        let mut request = request.map(|body| request_body(body, &exchange));
        request.extensions_mut().insert(ConnectInfo(self.connection.clone()));
        self.service.answer(request).map(|mut response| {
            if exchange.activity().has_unread_body() {
                // The start of the next request is unknown, so the connection has to close (RFC 9112 §9.6).
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response.map(|body| TrackedBody::new(body, exchange))
        })
    }

    /// Polls a connection to its end and enforces its time limits. `stop` begins a graceful shutdown. At the end of the drain,
    /// `wake_requests` wakes the requests that have no response yet, so that they give up.
    async fn drive<C, E>(
        &self,
        mut connection: Pin<&mut C>,
        activity: &ConnectionActivity,
        stop: impl Fn(Pin<&mut C>),
        wake_requests: impl Fn(),
    ) -> CloseReason
    where
        C: Future<Output = Result<(), E>>,
        E: std::fmt::Display,
    {
        let (mut shutdown_sent, mut is_head_timed, mut state) = (false, false, LifecycleState::Running);
        let mut wait = WakeGated::new(self.wait_until_or_after(Instant::now(), state));
        loop {
            // A head that arrives in one read has ended before this poll.
            let head_began = poll_fn(|_| {
                let began = !is_head_timed && activity.is_awaiting_head();
                if began { Poll::Ready(()) } else { Poll::Pending }
            });
            let is_due = tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(fault) = ended {
                        tracing::debug!(fault = sanitize(fault), "client connection failed");
                    }
                    return CloseReason::Finished;
                }
                () = head_began => true,
                is_due = &mut wait => is_due,
            };
            if !is_due {
                state = *self.lifecycle.borrow();
                if state == LifecycleState::Stopped {
                    wake_requests();
                }
            }
            is_head_timed = activity.is_awaiting_head();
            let now = Instant::now();
            let action = if is_due {
                activity.timeout_action(now, &self.gateway.snapshot().bounds)
            } else {
                TimeoutAction::Close
            };
            let until = match action {
                TimeoutAction::WaitUntil(_) | TimeoutAction::Close if shutdown_sent && activity.is_closable(now) => {
                    return CloseReason::Finished;
                }
                TimeoutAction::WaitUntil(until) if shutdown_sent => until.min(now + DRAIN_GRACE),
                TimeoutAction::WaitUntil(until) => until,
                TimeoutAction::LateHead => return CloseReason::LateHead,
                TimeoutAction::Abort => return CloseReason::Finished,
                TimeoutAction::Close => {
                    if !shutdown_sent {
                        stop(connection.as_mut());
                        shutdown_sent = true;
                    }
                    now + DRAIN_GRACE
                }
            };
            wait = WakeGated::new(self.wait_until_or_after(until, state));
        }
    }

    /// Waits until the time `until`, or for a state after `seen`. Returns whether the time came first.
    async fn wait_until_or_after(&self, until: Instant, seen: LifecycleState) -> bool {
        let mut lifecycle = self.lifecycle.clone();
        tokio::select! {
            biased;
            () = sleep_until(until.into()) => true,
            _ = lifecycle.wait_for(|state| *state > seen) => false,
        }
    }

    /// Writes an error response where there is no complete request, then closes the connection.
    async fn write_refusal<T: ClientIo>(&self, mut stream: T, refusal: &Refusal) {
        let mut record = Record::without_request(&self.gateway, self.connection.ends().peer);
        record.note_refusal(refusal);
        let text = respond::to_http1_bytes(refusal, &record);
        let written = timeout(Duration::from_secs(1), async {
            stream.write_all(&text).await?;
            stream.shutdown().await
        });
        if matches!(written.await, Ok(Ok(()))) {
            record.note_complete();
            drop(record);
            linger(stream).await;
        }
    }
}

/// Reads and drops input for up to [`LINGER`] before the connection is closed. Closing a socket with unread input sends a reset,
/// which can overtake the response (RFC 9112 §9.6).
async fn linger<T: ClientIo>(mut stream: T) {
    let mut unread = BytesMut::with_capacity(16 * 1024);
    let read = async {
        while stream.read_buf(&mut unread).await.is_ok_and(|n| n > 0) {
            unread.clear();
        }
    };
    let _ = timeout(LINGER, read).await;
}

/// Reason why a driver stopped.
#[derive(PartialEq, Eq)]
enum CloseReason {
    /// The connection has ended, or can be dropped without a response.
    Finished,
    /// A head took longer than `[limits] head`.
    LateHead,
}
