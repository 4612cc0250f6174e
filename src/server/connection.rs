//! One connection of a caller, from its first byte to its end.

#![expect(clippy::disallowed_methods, reason = "this module owns the time limits of a connection")]

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
use http_body_util::Either as Of;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, watch as channel};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use super::HttpService;
use super::framing::max_head;
use super::hangup::Stream;
use super::http2::{self, Http2Body};
use super::opening::{self, First, Incomplete};
use crate::config::limits::Bounds;
use crate::gateway::{Gateway, LifecycleState};
use crate::identify::ConnectionEnds;
use crate::record::Record;
use crate::refusal::Refusal;
use crate::respond;
use crate::server::accept::Admission;
use crate::server::activity::{Verdict, Watch};
use crate::server::body::{Outgoing, Source, request_body};
use crate::server::detached::run_detached;
use crate::server::transport::{CUT_HEAD, Ending, Wire};
use crate::server::wake_gate::Aside;
use crate::untrusted::sanitize;

/// How long a connection without a request may still bring one that is on its way, once the drain has begun.
const DRAIN_GRACE: Duration = Duration::from_millis(200);

/// How long a connection that is over still takes what a caller sends.
const LINGER: Duration = Duration::from_secs(1);

/// The connection that a request comes by: a request extension, for axum's `ConnectInfo`.
#[derive(Clone)]
pub struct ClientConnection(Arc<Context>);

struct Context {
    ends: ConnectionEnds,
    /// The tasks that the worker waits for before it ends.
    tasks: TaskTracker,
    phases: channel::Receiver<LifecycleState>,
}

impl ClientConnection {
    pub(super) fn new(ends: ConnectionEnds, tasks: TaskTracker, phases: channel::Receiver<LifecycleState>) -> Self {
        Self(Arc::new(Context { ends, tasks, phases }))
    }

    /// Returns the addresses of both ends.
    pub fn ends(&self) -> ConnectionEnds {
        self.0.ends
    }

    /// Has `work` go on to its end, even if the client leaves. The drain waits for it.
    pub(crate) fn run_detached<F>(&self, work: F) -> impl Future<Output = F::Output> + Send + use<F>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        run_detached(work, &self.0.tasks, self.0.phases.clone())
    }
}

/// What one connection needs.
pub(super) struct Guest<S> {
    pub(super) service: S,
    pub(super) gateway: Arc<Gateway>,
    pub(super) phases: channel::Receiver<LifecycleState>,
    pub(super) connection: ClientConnection,
    pub(super) admission: Admission,
}

impl<S: HttpService> Guest<S> {
    pub(super) async fn serve<T: Stream>(self, mut stream: T) {
        if !self.admission.is_welcome {
            return self.say(stream, &Refusal::Overloaded).await;
        }
        let limits = self.gateway.snapshot().bounds.clone();
        let mut phases = self.phases.clone();
        let drained = async {
            let _ = phases.wait_for(|phase| *phase >= LifecycleState::Draining).await;
            sleep(DRAIN_GRACE).await;
        };
        let first = tokio::select! {
            biased;
            first = opening::protocol(&mut stream, &limits) => first,
            () = drained => return,
        };
        let Some(First { mut bytes, is_http2 }) = first else { return };
        if is_http2 {
            // Boxed, so that a silent connection costs little.
            return Box::pin(self.serve_http2(stream, bytes.freeze(), &limits)).await;
        }
        let began = Instant::now();
        let refusal = match opening::head(&mut stream, &mut bytes, began, &limits).await {
            Ok(()) => return Box::pin(self.serve_http1(stream, bytes.freeze(), began, &limits)).await,
            Err(Incomplete::Late) => Refusal::late_head(limits.head),
            Err(Incomplete::Cut) => CUT_HEAD,
            Err(Incomplete::Broken) => return,
        };
        self.say(stream, &refusal).await;
    }

    async fn serve_http2<T: Stream>(&self, stream: T, first: Bytes, limits: &Bounds) {
        let watch = Arc::new(Watch::new(Instant::now(), true));
        let io = Wire::new(stream, first, watch.clone(), limits);
        // Beyond that, h2 refuses by itself, with no more than a status; fields count 32 bytes more (RFC 9113 §6.5.2).
        let most = max_head(limits).saturating_mul(2);
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let answer = |request| self.answer(&watch, Http2Body::of(request).map(Of::Right));
        let (stopped, tasks) = (Arc::new(Notify::new()), self.connection.0.tasks.clone());
        let mut connection = std::pin::pin!(http2::Connection::new(io, most, answer, stopped.clone(), tasks));
        let wake_streams = || stopped.notify_waiters();
        self.drive(connection.as_mut(), &watch, http2::Connection::graceful_shutdown, wake_streams).await;
    }

    async fn serve_http1<T: Stream>(&self, stream: T, first: Bytes, began: Instant, limits: &Bounds) {
        let watch = Arc::new(Watch::new(began, false));
        let io = Wire::new(stream, first, watch.clone(), limits);
        let mut builder = http1::Builder::new();
        // `framing` refuses larger heads, with a message.
        builder.timer(TokioTimer::new()).header_read_timeout(None).max_header_size(2 * max_head(limits));
        let service =
            service_fn(|request: Request<_>| self.answer(&watch, request.map(Of::Left)).map(Ok::<_, Infallible>));
        let mut connection = builder.serve_connection(TokioIo::new(io), service);
        // Each poll of the connection polls its request, too.
        let end = self.drive(Pin::new(&mut connection), &watch, http1::Connection::graceful_shutdown, || {}).await;
        let Ending { stream, refusal, peer_is_gone } = connection.into_parts().io.into_inner().into_ending();
        let late = (end == End::LateHead).then(|| Refusal::late_head(self.gateway.snapshot().bounds.head));
        match refusal.or(late) {
            Some(refusal) => self.say(stream, &refusal).await,
            None if watch.had_body() && !peer_is_gone => linger(stream).await,
            None => {}
        }
    }

    /// Answers one request.
    fn answer(
        &self,
        watch: &Arc<Watch>,
        request: Request<Source>,
    ) -> impl Future<Output = Response<Outgoing<S::Body>>> + Send + use<S> {
        let answering = watch.answering(!request.body().is_end_stream());
        let mut request = request.map(|body| request_body(body, &answering));
        request.extensions_mut().insert(ConnectInfo(self.connection.clone()));
        self.service.answer(request).map(|mut answer| {
            if answering.watch().has_left_unread() {
                // Where the next request would begin, nobody knows (RFC 9112 §9.6).
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            answer.map(|body| Outgoing::new(body, answering))
        })
    }

    /// Polls a connection to its end, minding its deadlines and the drain. Calls `wake_requests` at the last phase, so that
    /// requests without a response are polled and give up.
    async fn drive<C, E>(
        &self,
        mut connection: Pin<&mut C>,
        watch: &Watch,
        stop: impl Fn(Pin<&mut C>),
        wake_requests: impl Fn(),
    ) -> End
    where
        C: Future<Output = Result<(), E>>,
        E: std::fmt::Display,
    {
        let (mut told, mut head_is_minded, mut phase) = (false, false, LifecycleState::Running);
        let mut waiting = Aside::new(self.due_or_later(Instant::now(), phase));
        loop {
            // A head that comes whole is over before this is looked at.
            let head_began = poll_fn(|_| {
                let began = !head_is_minded && watch.awaits_head();
                if began { Poll::Ready(()) } else { Poll::Pending }
            });
            let is_due = tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(fault) = ended {
                        tracing::debug!(fault = sanitize(fault), "a caller's connection ended");
                    }
                    return End::Quiet;
                }
                () = head_began => true,
                is_due = &mut waiting => is_due,
            };
            if !is_due {
                phase = *self.phases.borrow();
                if phase == LifecycleState::Stopped {
                    wake_requests();
                }
            }
            head_is_minded = watch.awaits_head();
            let now = Instant::now();
            let verdict = if is_due { watch.verdict(now, &self.gateway.snapshot().bounds) } else { Verdict::End };
            let until = match verdict {
                Verdict::GoOn(_) | Verdict::End if told && watch.is_over(now) => return End::Quiet,
                Verdict::GoOn(until) if told => until.min(now + DRAIN_GRACE),
                Verdict::GoOn(until) => until,
                Verdict::LateHead => return End::LateHead,
                Verdict::Stuck => return End::Quiet,
                Verdict::End => {
                    if !told {
                        stop(connection.as_mut());
                        told = true;
                    }
                    now + DRAIN_GRACE
                }
            };
            waiting = Aside::new(self.due_or_later(until, phase));
        }
    }

    /// Waits until then, or for a later phase than `seen`. Returns whether it was the time.
    async fn due_or_later(&self, until: Instant, seen: LifecycleState) -> bool {
        let mut phases = self.phases.clone();
        tokio::select! {
            biased;
            () = sleep_until(until.into()) => true,
            _ = phases.wait_for(|phase| *phase > seen) => false,
        }
    }

    /// Refuses where there is no request to answer, and closes.
    async fn say<T: Stream>(&self, mut stream: T, refusal: &Refusal) {
        let mut record = Record::without_request(&self.gateway, self.connection.ends().peer);
        record.note_refusal(refusal);
        let text = respond::raw(refusal, &record);
        let said = timeout(Duration::from_secs(1), async {
            stream.write_all(&text).await?;
            stream.shutdown().await
        });
        if matches!(said.await, Ok(Ok(()))) {
            record.note_complete();
            drop(record);
            linger(stream).await;
        }
    }
}

/// Reads what the caller still sends, for a while, before the connection is dropped. To close a socket with bytes unread
/// resets it, and the reset can overtake the answer that was written before (RFC 9112 §9.6).
async fn linger<T: Stream>(mut stream: T) {
    let mut unread = BytesMut::with_capacity(16 * 1024);
    let read = async {
        while stream.read_buf(&mut unread).await.is_ok_and(|n| n > 0) {
            unread.clear();
        }
    };
    let _ = timeout(LINGER, read).await;
}

/// How a connection ended.
#[derive(PartialEq, Eq)]
enum End {
    /// Nothing is to be said.
    Quiet,
    /// In the middle of a head, which took too long.
    LateHead,
}
