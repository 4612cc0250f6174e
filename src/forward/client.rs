//! Calls of the gateway's own: token endpoints. They go the same way as forwarded requests, by the same rules of TLS.
//!
//! Each has a connection to itself and is sent once: a token endpoint that was asked twice by a retry could use up a
//! refresh token. What is told apart is whether Cal.com may have received it.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Limited};
use secrecy::zeroize::Zeroizing;
use tokio::time::timeout;

use crate::forward::failure::describe;
use crate::forward::http2::Http2;
use crate::forward::pool::Connection;
use crate::forward::{Upload, Upstream, connect};
use crate::untrusted::sanitize;

/// Bytes of an answer that are read at most.
const MOST_ANSWER: usize = 256 * 1024;

/// What a call asks.
#[derive(Debug)]
pub struct Call {
    /// Where, below the upstream's address: `/v2/…`.
    pub path: String,
    /// The media type of the body.
    pub content_type: HeaderValue,
    /// Credentials, each marked sensitive.
    pub headers: HeaderMap,
    /// The body, wiped once it is sent.
    pub body: Bytes,
}

/// A call's answer.
#[derive(Debug)]
pub struct Called {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, which may hold tokens.
    pub body: Zeroizing<Vec<u8>>,
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallFault {
    /// Nothing of it was sent.
    NotSent(String),
    /// Some of it was sent: it may have been carried out.
    Unknown(String),
}

impl std::fmt::Display for CallFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSent(why) | Self::Unknown(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for CallFault {}

impl Upstream {
    /// Makes a `POST` of the gateway's own.
    ///
    /// # Errors
    /// Whether it may have been carried out, and why there is no answer.
    pub async fn call(&self, call: Call) -> Result<Called, CallFault> {
        let connection = connect::connect(self, None).await.map_err(|why| CallFault::NotSent(sanitize(why)))?;
        let exchange = timeout(self.headers_within, self.exchange_call(connection, call)).await;
        exchange.unwrap_or_else(|_| Err(CallFault::Unknown("no answer within limits.upstream_headers".to_owned())))
    }

    async fn exchange_call(&self, connection: Connection, call: Call) -> Result<Called, CallFault> {
        let fault = |mut fault: hyper::client::conn::TrySendError<Request<Upload>>| match fault.take_message() {
            Some(_) => CallFault::NotSent(describe(fault.error())),
            None => CallFault::Unknown(describe(fault.error())),
        };
        let response = match connection {
            Connection::Http1(mut http1) => {
                let request = self.call_request(call, Version::HTTP_11)?;
                http1.sender.try_send_request(request).await.map_err(fault)?
            }
            Connection::Http2(Http2 { mut sender, stream: _stream, .. }) => {
                let request = self.call_request(call, Version::HTTP_2)?;
                sender.try_send_request(request).await.map_err(fault)?
            }
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MOST_ANSWER).collect().await.map_err(|e| CallFault::Unknown(sanitize(e)))?;
        Ok(Called { status: head.status, headers: head.headers, body: Zeroizing::new(body.to_bytes().into()) })
    }

    fn call_request(&self, call: Call, version: Version) -> Result<Request<Upload>, CallFault> {
        let broken = |_| CallFault::NotSent("the request cannot be written".to_owned());
        let path = PathAndQuery::try_from(format!("{}{}", self.base_path, call.path)).map_err(|e| broken(e.into()))?;
        let mut headers = call.headers;
        headers.insert(CONTENT_TYPE, call.content_type);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(call.body.len()));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("calgate/", env!("CARGO_PKG_VERSION"))));
        let uri = if version == Version::HTTP_2 {
            Uri::builder()
                .scheme("https")
                .authority(self.authority.as_str())
                .path_and_query(path)
                .build()
                .map_err(broken)?
        } else {
            headers.insert(HOST, self.authority_value.clone());
            Uri::from(path)
        };
        let mut request = Request::new(Upload::whole(call.body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        *request.headers_mut() = headers;
        Ok(request)
    }
}
