//! HTTP/2 connections of clients (RFC 9113).
//!
//! The server uses h2 directly because hyper's HTTP/2 server cannot send `100 Continue`.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};
use futures_util::FutureExt as _;
use h2::server::{self, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, EXPECT, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::task::TaskTracker;

use super::hangup::ClientIo;
use crate::server::body::{TrackedBody, TrackedBytes};
use crate::server::transport::Transport;

/// Flow-control window of a stream and of a connection, 1 MiB each: the default of `limits.body_bytes`.
const WINDOW: u32 = 1024 * 1024;

/// Maximum concurrent streams of one connection.
const MAX_STREAMS: u32 = 256;

/// Maximum response bytes that wait in h2 for one stream, 400 KiB.
const MAX_SEND_BUFFER: usize = 400 * 1024;

/// Time between a ping's acknowledgement and the next ping, 30 s.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Time that a client has to acknowledge a ping, 20 s.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// An HTTP/2 connection. It calls `answer` for each request.
pub(super) struct Connection<T, F> {
    state: State<T>,
    answer: F,
    stopped: Arc<Notify>,
    tasks: TaskTracker,
    is_stopping: bool,
}

enum State<T> {
    Handshaking(Box<server::Handshake<Transport<T>, TrackedBytes>>),
    Serving(Box<Serving<T>>),
}

struct Serving<T> {
    connection: server::Connection<Transport<T>, TrackedBytes>,
    pings: Option<Pings>,
}

/// Pings that check whether the client is still connected.
struct Pings {
    sender: PingPong,
    timer: Pin<Box<Sleep>>,
    is_pending: bool,
}

impl<T: ClientIo, F> Connection<T, F> {
    /// Begins a connection, whose streams are among the `tasks`. `max_header_list` is the largest decoded header list (RFC
    /// 9113 §6.5.2). `stopped` wakes the streams that have no response yet.
    pub(super) fn new(
        io: Transport<T>,
        max_header_list: u32,
        answer: F,
        stopped: Arc<Notify>,
        tasks: TaskTracker,
    ) -> Self {
        let mut builder = server::Builder::new();
        builder
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(max_header_list)
            .max_send_buffer_size(MAX_SEND_BUFFER);
        Self { state: State::Handshaking(Box::new(builder.handshake(io))), answer, stopped, tasks, is_stopping: false }
    }

    /// Accepts no more requests, and ends the connection after those in flight.
    pub(super) fn graceful_shutdown(mut self: Pin<&mut Self>)
    where
        F: Unpin,
    {
        self.is_stopping = true;
        if let State::Serving(serving) = &mut self.state {
            serving.connection.graceful_shutdown();
        }
    }
}

impl<T, F, A, B> Future for Connection<T, F>
where
    T: ClientIo,
    F: Fn(Request<RecvStream>) -> A + Unpin,
    A: Future<Output = Response<TrackedBody<B>>> + Send + 'static,
    B: Body<Data = Bytes, Error: Send> + Unpin + Send + 'static,
{
    type Output = Result<(), h2::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Handshaking(handshake) => {
                    let mut connection = ready!(Pin::new(handshake.as_mut()).poll(cx))?;
                    if this.is_stopping {
                        connection.graceful_shutdown();
                    }
                    let pings = connection.ping_pong().map(Pings::new);
                    this.state = State::Serving(Box::new(Serving { connection, pings }));
                }
                State::Serving(serving) => {
                    if serving.pings.as_mut().is_some_and(|pings| pings.poll_lost(cx).is_ready()) {
                        serving.pings = None;
                        serving.connection.abrupt_shutdown(Reason::NO_ERROR);
                    }
                    let Some(accepted) = ready!(serving.connection.poll_accept(cx)) else { return Poll::Ready(Ok(())) };
                    let (request, respond) = accepted?;
                    let expects_continue = expects_continue(&request);
                    let (answer, stopped) = ((this.answer)(request), this.stopped.clone());
                    drop(this.tasks.spawn(serve_stream(answer, stopped, respond, expects_continue)));
                }
            }
        }
    }
}

impl Pings {
    fn new(sender: PingPong) -> Self {
        Self { sender, timer: Box::pin(sleep(PING_INTERVAL)), is_pending: false }
    }

    /// Completes when the client has not acknowledged a ping in time.
    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.is_pending && self.sender.poll_pong(cx).is_ready() {
                self.is_pending = false;
                self.timer.as_mut().reset(Instant::now() + PING_INTERVAL);
            }
            ready!(self.timer.as_mut().poll(cx));
            if self.is_pending || self.sender.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            self.is_pending = true;
            self.timer.as_mut().reset(Instant::now() + PING_TIMEOUT);
        }
    }
}

/// Returns whether the client waits for `100 Continue` before it sends the body (RFC 9110 §10.1.1).
fn expects_continue(request: &Request<RecvStream>) -> bool {
    let expects = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    !request.body().is_end_stream() && request.headers().get(EXPECT).is_some_and(expects)
}

/// Sends the response to one request.
#[expect(clippy::disallowed_methods, reason = "the Date field contains the time of day")]
async fn serve_stream<B>(
    answer: impl Future<Output = Response<TrackedBody<B>>>,
    stopped: Arc<Notify>,
    mut respond: SendResponse<TrackedBytes>,
    mut expects_continue: bool,
) where
    B: Body<Data = Bytes> + Unpin,
{
    let mut answer = pin!(answer);
    let mut notified = pin!(stopped.notified().fuse());
    let answered = poll_fn(|cx| {
        if let Poll::Ready(response) = answer.as_mut().poll(cx) {
            return Poll::Ready(Some(response));
        }
        let is_stopped = notified.as_mut().poll(cx).is_ready();
        if is_stopped && let Poll::Ready(response) = answer.as_mut().poll(cx) {
            return Poll::Ready(Some(response));
        }
        if std::mem::take(&mut expects_continue) {
            // The service did not reject the request at once.
            let mut interim = Response::new(());
            *interim.status_mut() = StatusCode::CONTINUE;
            let _ = respond.send_informational(interim);
        }
        // A reset ends the request. Its record gets the status 499 when it is dropped.
        respond.poll_reset(cx).map(|_| None)
    });
    let Some(response) = answered.await else { return };
    let (mut head, body) = response.into_parts();
    // HTTP/2 has no connection-specific fields (RFC 9113 §8.2.2).
    head.headers.remove(CONNECTION);
    head.headers.remove(TRANSFER_ENCODING);
    if !head.headers.contains_key(DATE)
        && let Ok(now) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()))
    {
        head.headers.insert(DATE, now);
    }
    let is_empty = body.is_end_stream();
    if let Some(length) = body.size_hint().exact().filter(|_| !is_empty) {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    let Ok(stream) = respond.send_response(Response::from_parts(head, ()), is_empty) else { return };
    if !is_empty {
        let _ = send_body(body, stream).await;
    }
}

/// Sends the body of a response. Ends early if the client resets the stream or the connection breaks.
async fn send_body<B>(mut body: TrackedBody<B>, mut stream: SendStream<TrackedBytes>) -> Result<(), h2::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        let frame = poll_fn(|cx| match stream.poll_reset(cx) {
            Poll::Ready(reset) => Poll::Ready(Err(reset.map_or_else(|fault| fault, h2::Error::from))),
            Poll::Pending => Pin::new(&mut body).poll_frame(cx).map(Ok),
        });
        let Some(frame) = frame.await? else { return stream.send_data(TrackedBytes::empty(), true) };
        let Ok(frame) = frame else {
            stream.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        };
        match frame.into_data() {
            Ok(piece) => {
                if piece.has_remaining() {
                    wait_for_window(&mut stream).await?;
                }
                let is_last = body.is_end_stream();
                stream.send_data(piece, is_last)?;
                if is_last {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return stream.send_trailers(trailers);
                }
            }
        }
    }
}

/// Waits until the client's window has room. It reserves one byte, so that a slow stream leaves the connection's window to the
/// others.
async fn wait_for_window(stream: &mut SendStream<TrackedBytes>) -> Result<(), h2::Error> {
    stream.reserve_capacity(1);
    poll_fn(|cx| {
        while stream.capacity() == 0 {
            if let Poll::Ready(reset) = stream.poll_reset(cx) {
                return Poll::Ready(Err(reset.map_or_else(|fault| fault, h2::Error::from)));
            }
            match ready!(stream.poll_capacity(cx)) {
                Some(capacity) => drop(capacity?),
                None => return Poll::Ready(Err(Reason::CANCEL.into())),
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// The body of a request.
pub(super) struct Http2Body {
    stream: RecvStream,
    /// Remaining bytes according to `Content-Length`. h2 resets the stream if the length is wrong.
    left: Option<u64>,
    is_at_trailers: bool,
}

impl Http2Body {
    /// Wraps the body of a request.
    pub(super) fn from_request(request: Request<RecvStream>) -> Request<Self> {
        let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        request.map(|stream| Self { stream, left: length, is_at_trailers: false })
    }
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        if !this.is_at_trailers {
            if let Some(data) = ready!(this.stream.poll_data(cx)) {
                let frame = data.map(|data| {
                    let _ = this.stream.flow_control().release_capacity(data.len());
                    this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                    Frame::data(data)
                });
                return Poll::Ready(Some(frame));
            }
            this.is_at_trailers = true;
        }
        this.stream.poll_trailers(cx).map(|trailers| trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
