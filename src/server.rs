//! HTTP/1.1 and HTTP/2 server: listeners, connections, and what answers their requests.
//!
//! It knows neither the request path nor the admin API: both are an [`Answers`] that `serve` puts behind a listener.

mod aside;
mod connection;
mod doorway;
mod field_blocks;
mod framing;
mod guarded;
mod hangup;
mod held;
mod http2;
mod lasting;
mod listener;
mod opening;
mod watch;
mod wire;

use std::future::Future;

use http::{Response, request};
use http_body::Body;

pub(crate) use doorway::Doorway;
pub use guarded::CallersBody;
pub use listener::Listener;

use crate::app::Place;
use crate::identify::ConnectionEnds;

/// What answers the requests of a connection.
pub(crate) trait Answers: Clone + Send + Sync + 'static {
    /// The body it answers with.
    type Body: Body<Data = bytes::Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send>
        + Send
        + Unpin
        + 'static;

    /// A place for one more connection, unless there are too many.
    fn admit(&self) -> Option<Place>;

    /// Answers one request.
    fn answer(
        &self,
        ends: ConnectionEnds,
        head: request::Parts,
        body: CallersBody,
    ) -> impl Future<Output = Response<Self::Body>> + Send + use<Self>;

    /// Whether a request is answered to its end even if its caller leaves.
    fn outlasts_caller(&self, _head: &request::Parts) -> bool {
        false
    }
}
