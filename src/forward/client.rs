//! Client for the gateway's own requests, such as those to Cal.com's token endpoints.
//!
//! They use the TLS configuration, the proxy and the resolver of forwarded requests. Connecting is left to reqwest, which tries the
//! addresses of a family one after the other. Each request has a connection of its own and is sent once, because a repeated
//! request could use up a refresh token. Errors distinguish requests that were never sent from requests whose fate is unknown.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::io;
use std::iter::successors;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{ClientBuilder, Url, redirect, retry};
use secrecy::zeroize::Zeroizing;
use tokio_rustls::TlsConnector;

use crate::config::limits::Bounds;
use crate::config::proxy::Proxy;
use crate::config::upstream::Upstream as UpstreamConfig;

use crate::forward::connect::tls_remedy;
use crate::forward::failure::describe;
use crate::forward::http2::{MAX_HEAD, PING_INTERVAL, PING_TIMEOUT};
use crate::forward::resolve::Resolver;
use crate::forward::{Upstream, connect};
use crate::tls;
use crate::untrusted::sanitize;

/// Maximum length of a response body, 256 KiB. A token response has a few KiB.
const MAX_RESPONSE: usize = 256 * 1024;

/// Request of the gateway's own. Its method is `POST`.
#[derive(Debug)]
pub struct ApiRequest {
    /// Path below the upstream's address: `/v2/…`.
    pub path: String,
    /// Media type of the body.
    pub content_type: HeaderValue,
    /// Credentials, each marked sensitive.
    pub headers: HeaderMap,
    /// Body, which is wiped after it is sent.
    pub body: Bytes,
}

/// Response to an [`ApiRequest`].
#[derive(Debug)]
pub struct ApiResponse {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, which may hold tokens.
    pub body: Zeroizing<Vec<u8>>,
}

/// Reason why an [`ApiRequest`] has no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    /// Nothing of the request was sent.
    NotSent(String),
    /// Some of the request may have been sent: Cal.com may have carried it out.
    Unknown(String),
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSent(reason) | Self::Unknown(reason) => f.write_str(reason),
        }
    }
}

impl StdError for ApiError {}

/// Returns a client without a proxy, redirects, retries and connections that are kept. `tls` is `None` for plain HTTP.
///
/// # Errors
/// The reason why TLS cannot be set up.
pub(crate) fn client_builder(tls: Option<&TlsConnector>) -> Result<ClientBuilder, String> {
    // Without a configuration, reqwest would make one of its own, with the authorities of the system.
    let tls = match tls {
        Some(connector) => connector.config().clone(),
        None => tls::without_authorities()?,
    };
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(Arc::unwrap_or_clone(tls))
        .no_proxy()
        .redirect(redirect::Policy::none())
        .referer(false)
        .retry(retry::never())
        .pool_max_idle_per_host(0))
}

/// Client that sends the gateway's own requests to one upstream.
pub(super) struct ApiClient {
    http: reqwest::Client,
    /// Address of the upstream, without a `/` at the end.
    address: String,
}

impl ApiClient {
    /// Prepares a client for the upstream of a configuration.
    ///
    /// # Errors
    /// The reason why the configuration cannot be used.
    pub(super) fn new(
        config: &UpstreamConfig,
        limits: &Bounds,
        tls: Option<&TlsConnector>,
        proxy: Option<&Proxy>,
        resolver: &Arc<Resolver>,
    ) -> Result<Self, String> {
        let base = &config.base_url;
        let scheme = if base.tls { "https" } else { "http" };
        let address = format!("{scheme}://{}{}", base.authority, base.path);
        Url::parse(&address).map_err(|fault| format!("the address is not a URL: {fault}"))?;
        let total = config.response_within(limits);
        let mut builder = client_builder(tls)?
            .dns_resolver(UpstreamResolver { resolver: resolver.clone(), timeout: limits.upstream_lookup })
            .connect_timeout(total.saturating_sub(limits.upstream_headers))
            .timeout(total)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
        #[cfg(target_os = "linux")]
        {
            builder = builder.tcp_user_timeout(connect::USER_TIMEOUT);
        }
        if let Some(proxy) = proxy {
            builder = builder.proxy(reqwest_proxy(proxy)?);
        }
        Ok(Self { http: builder.build().map_err(|fault| error_chain(&fault))?, address })
    }
}

fn reqwest_proxy(proxy: &Proxy) -> Result<reqwest::Proxy, String> {
    let through = reqwest::Proxy::all(format!("http://{}", proxy.address())).map_err(|fault| error_chain(&fault))?;
    Ok(match proxy.authorization() {
        Some(authorization) => through.custom_http_auth(authorization.clone()),
        None => through,
    })
}

/// The upstream's resolver, as reqwest uses it. It knows one host: the only one that the client connects to.
struct UpstreamResolver {
    resolver: Arc<Resolver>,
    timeout: Duration,
}

impl Resolve for UpstreamResolver {
    fn resolve(&self, _name: Name) -> Resolving {
        let (resolver, timeout) = (self.resolver.clone(), self.timeout);
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = resolver.addresses(timeout).await?.to_vec();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

impl Upstream {
    /// Sends a request of the gateway's own and waits for the whole response.
    ///
    /// # Errors
    /// The reason why there is no response, and whether Cal.com may have carried the request out.
    pub async fn call(&self, request: ApiRequest) -> Result<ApiResponse, ApiError> {
        let length = HeaderValue::from(request.body.len());
        let sent = self
            .api
            .http
            .request(Method::POST, format!("{}{}", self.api.address, request.path))
            .headers(request.headers)
            .header(CONTENT_TYPE, request.content_type)
            .header(CONTENT_LENGTH, length)
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .header(USER_AGENT, HeaderValue::from_static(concat!("calgate/", env!("CARGO_PKG_VERSION"))))
            .body(request.body)
            .send();
        let response = sent.await.map_err(|error| self.api_error(&error))?;
        let (head, body) = Response::from(response).into_parts();
        let body = Limited::new(body, MAX_RESPONSE).collect().await;
        let body =
            body.map_err(|error| ApiError::Unknown(format!("the response cannot be read: {}", error_chain(&*error))))?;
        Ok(ApiResponse { status: head.status, headers: head.headers, body: Zeroizing::new(body.to_bytes().into()) })
    }

    fn api_error(&self, error: &reqwest::Error) -> ApiError {
        if error.is_builder() {
            return ApiError::NotSent(format!("the request cannot be written: {}", error_chain(error)));
        }
        if error.is_connect() {
            self.resolver.expire();
            return ApiError::NotSent(self.connect_failure(error));
        }
        let reason = cause::<hyper::Error>(error).map_or_else(|| error_chain(error), describe);
        if is_unsent(error) {
            ApiError::NotSent(reason)
        } else if is_late(error) {
            let limits = "limits.upstream_lookup, limits.upstream_connect and limits.upstream_headers";
            ApiError::Unknown(format!("no response within {limits} together"))
        } else {
            ApiError::Unknown(reason)
        }
    }

    fn connect_failure(&self, error: &reqwest::Error) -> String {
        let reason = if error.is_timeout() {
            "it took longer than limits.upstream_lookup and limits.upstream_connect".to_owned()
        } else {
            cause::<legacy::Error>(error).and_then(StdError::source).map_or_else(|| error_chain(error), error_chain)
        };
        let remedy = if reason.contains("proxy authorization required") {
            "; write user and password into the URL of upstream.proxy or HTTPS_PROXY"
        } else {
            tls_remedy(&reason)
        };
        match &self.proxy {
            Some(proxy) => format!("connecting through the proxy {} failed: {reason}{remedy}", proxy.address()),
            None => format!("connecting failed: {reason}{remedy}"),
        }
    }
}

/// Returns whether the connection ended before the request was handed to it.
///
/// The connection's error says so in two cases: its handshake failed, so that it carries no connection information, or hyper
/// returned the request unsent, which it calls canceled.
fn is_unsent(error: &reqwest::Error) -> bool {
    cause::<legacy::Error>(error).is_some_and(|error| error.connect_info().is_none())
        || cause::<hyper::Error>(error).is_some_and(hyper::Error::is_canceled)
}

/// Returns whether the time limit of the whole request is over. reqwest also calls a connection that the system gave up
/// (`ETIMEDOUT`) a timeout.
fn is_late(error: &reqwest::Error) -> bool {
    error.is_timeout() && cause::<hyper::Error>(error).is_none() && cause::<io::Error>(error).is_none()
}

/// Returns the first error of that type among `error` and its sources.
fn cause<'e, E: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e E> {
    successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}

/// Returns the texts of an error and its sources. reqwest's own texts are left out, because they repeat the URL.
pub(crate) fn error_chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    for error in successors(Some(error), |&error| error.source()).filter(|error| !error.is::<reqwest::Error>()) {
        let part = error.to_string();
        if !text.contains(&part) {
            let separator = if text.is_empty() { "" } else { ": " };
            let _ = write!(text, "{separator}{part}");
        }
    }
    sanitize(text)
}
