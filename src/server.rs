//! HTTP/1.1 and HTTP/2 server, generic over the [`tower::Service`] that answers requests.
//!
//! It depends on neither the request path nor the admin API: `serve` puts a service behind each listener.

mod accept;
mod activity;
mod body;
mod connection;
mod detached;
mod field_blocks;
mod framing;
mod hangup;
mod held_bytes;
mod http2;
mod listener;
mod opening;
mod transport;
mod wake_gate;

use std::convert::Infallible;

use axum::body::Body as RequestBody;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::Service;

pub(crate) use accept::AcceptLoop;
pub use connection::ClientConnection;
pub use listener::Listener;

/// A [`Service`] that answers the requests of a connection.
///
/// The server never calls `poll_ready`, so the service must always be ready. An axum application is: it answers the requests
/// that exceed a limit with an error.
pub(crate) trait HttpService: Clone + Send + Sync + 'static {
    /// The body of a response.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send> + Send + Unpin + 'static;

    /// Answers one request.
    fn answer(&self, request: Request<RequestBody>) -> impl Future<Output = Response<Self::Body>> + Send + use<Self>;
}

impl<S, B> HttpService for S
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send> + Send + Unpin + 'static,
{
    type Body = B;

    fn answer(&self, request: Request<RequestBody>) -> impl Future<Output = Response<B>> + Send + use<S, B> {
        let answered = self.clone().call(request);
        async move {
            match answered.await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    }
}
