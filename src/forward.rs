//! Seventh stage: sends the rebuilt request to Cal.com, and returns the response.
//!
//! [`Upstream::send`] makes the path from the catalog's template and the headers by the rules of `headers`, and adds the
//! credential last. Only this module configures clients of hyper and reqwest.

mod acquire;
mod client;
mod connect;
mod download;
mod exchange;
mod failure;
mod fingerprint;
mod http2;
mod io;
mod pool;
mod proxy;
mod resolve;
mod timeout;
mod upload;
mod upload_state;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING, VIA};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, request};
use http_body::Body as _;
use hyper::body::Incoming;
use percent_encoding::{CONTROLS, utf8_percent_encode};
use rustls_pki_types::ServerName;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

pub use client::{ApiError, ApiRequest, ApiResponse};
pub(crate) use client::{client_builder, error_chain};
pub(crate) use download::size_hint_plus;
pub use download::{Download, DownloadFault};
pub use pool::{MAX_IDLE_LIMIT, set_max_idle};
pub use resolve::{LookupTimes, Resolver};
pub use timeout::Deadline;
pub use upload::Upload;

use crate::budget::{Slot, matched_key};
use crate::catalog::{ApiVersion, RouteMatch};
use crate::config::limits::Bounds;
use crate::config::proxy::Proxy;
use crate::config::upstream::Upstream as UpstreamConfig;
use crate::credential::AuthHeaders;
use crate::headers::{self, API_VERSION, CLIENT_ID, REQUEST_ID, SECRET_KEY, UpstreamAddress};
use crate::limit::Permit;
use crate::refusal::Refusal;
use crate::tls;
use client::ApiClient;
use failure::SendFailure;
use fingerprint::UpstreamFingerprint;
use pool::Lease;

/// Cal.com as a configuration describes it, and the ways to send requests there.
pub struct Upstream {
    /// Number that identifies the connection pools of this upstream. A later upstream has a larger number. It changes when
    /// all connections must be new.
    id: AtomicU64,
    /// Settings that it was built from.
    fingerprint: UpstreamFingerprint,
    host: String,
    port: u16,
    authority: String,
    authority_value: HeaderValue,
    base_path: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    offers_http2: bool,
    /// Proxy on the way to Cal.com.
    proxy: Option<Proxy>,
    /// Target of the tunnel through the proxy: `host:port`.
    tunnel_target: String,
    /// Host and port to connect to: those of Cal.com or of the proxy.
    connect_to: (String, u16),
    /// Addresses of that host.
    resolver: Arc<Resolver>,
    /// Client for the gateway's own requests.
    api: ApiClient,
    extra_headers: Vec<HeaderName>,
    pins_api_version: bool,
    connection_age: Duration,
    lookup_timeout: Duration,
    connect_timeout: Duration,
    headers_timeout: Duration,
    total_timeout: Duration,
    response_within: Duration,
}

/// Request for Cal.com, before it has the form of an HTTP version.
pub struct UpstreamRequest<'a, 'p> {
    /// Head of the caller's request.
    pub head: &'a request::Parts,
    /// Proof that the request may be sent.
    pub permit: &'a Permit<'p>,
    /// Credential.
    pub auth_headers: &'a AuthHeaders,
    /// Request id, for Cal.com's log and for the gateway's.
    pub request_id: &'a HeaderValue,
    /// Time at which it is sent.
    pub at: std::time::Instant,
    /// Set if any part of the request may have been written, so that Cal.com may have carried it out.
    pub may_be_done: &'a AtomicBool,
}

impl UpstreamRequest<'_, '_> {
    /// Records whether any part of the request may have been written.
    fn note_sending(&self, slot: &mut Slot, may_be_done: bool) {
        self.may_be_done.store(may_be_done, Ordering::Relaxed);
        if may_be_done { slot.mark_sent() } else { slot.mark_unsent() }
    }
}

impl Upstream {
    /// Prepares the upstream of a configuration. It keeps the addresses that `previous` knows, if both connect to the same
    /// host.
    ///
    /// # Errors
    /// The reason why the configuration cannot be used.
    pub fn new(config: &UpstreamConfig, limits: &Bounds, previous: Option<&Self>) -> Result<Self, String> {
        let base = &config.base_url;
        let tls = connector(config)?;
        let proxy = config.proxy.for_upstream(base)?;
        let (host, port) = proxy.as_ref().map_or((&*base.host, base.port), |proxy| (proxy.host(), proxy.port()));
        let connect_to = (host.to_owned(), port);
        let resolver = match previous.filter(|previous| previous.connect_to == connect_to) {
            Some(previous) => {
                previous.resolver.expire();
                previous.resolver.clone()
            }
            None => Resolver::system(host, port),
        };
        Ok(Self {
            id: AtomicU64::new(next_id()),
            tunnel_target: host_and_port(&base.host, base.port),
            api: ApiClient::new(config, limits, tls.as_ref().map(|(tls, _)| tls), proxy.as_ref(), &resolver)?,
            resolver,
            connect_to,
            proxy,
            fingerprint: UpstreamFingerprint::of(config, limits),
            host: base.host.clone(),
            port: base.port,
            authority: base.authority.clone(),
            authority_value: HeaderValue::from_str(&base.authority).map_err(|e| e.to_string())?,
            base_path: base.path.clone(),
            offers_http2: config.http2 && tls.is_some(),
            tls,
            extra_headers: config.forward_headers.clone(),
            pins_api_version: config.pin_api_version,
            connection_age: limits.upstream_connection_age,
            lookup_timeout: limits.upstream_lookup,
            connect_timeout: limits.upstream_connect,
            headers_timeout: limits.upstream_headers,
            total_timeout: limits.upstream_total,
            response_within: config.response_within(limits),
        })
    }

    /// Returns the configured request headers that are forwarded in addition to the built-in list.
    pub fn extra_headers(&self) -> &[HeaderName] {
        &self.extra_headers
    }

    /// Returns whether `config` and `limits` would produce the same upstream, so that a reload can keep its connections.
    pub fn is_built_from(&self, config: &UpstreamConfig, limits: &Bounds) -> bool {
        self.fingerprint == UpstreamFingerprint::of(config, limits)
    }

    /// Returns the longest time from taking a place in the budget to the head of the response.
    pub fn response_within(&self) -> Duration {
        self.response_within
    }

    /// Makes every request from now on use a new connection, after a new lookup. Requests in progress finish on their
    /// connections.
    pub fn reconnect(&self) {
        self.id.store(next_id(), Ordering::Relaxed);
        self.resolver.expire();
    }

    fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }

    /// Sends a permitted request and waits for the head of the response. The headers of the upstream hop are removed.
    ///
    /// A request is sent a second time, on another connection, only if that cannot carry out the operation twice. This holds
    /// in three cases: no part of it was written, Cal.com says that it did not process it, or it is a `GET` or `HEAD` without
    /// a byte of a response. If the first attempt may have reached Cal.com, the second one needs a slot of its own. Without a
    /// slot, the caller gets the first failure.
    ///
    /// # Errors
    /// [`Refusal::UpstreamUnreachable`], [`Refusal::UpstreamTimeout`], [`Refusal::UpstreamInvalid`], and the faults of the
    /// caller's body.
    pub async fn send(
        &self,
        ask: &UpstreamRequest<'_, '_>,
        body: Upload,
        slot: &mut Slot,
    ) -> Result<Response<Download>, Refusal> {
        let now = Instant::from_std(ask.at);
        let total = Deadline::after_moment(now, self.total_timeout);
        let Some(connection) = pool::acquire(self.id(), now) else {
            // Rare futures are boxed, here and below: they are large, and every request in flight would reserve memory for
            // them.
            let (response, lease) = Box::pin(self.send_on_new_connection(ask, body, slot, None)).await?;
            return self.accept_response(response, lease, total, ask, slot);
        };
        let failed = connection.number();
        let (response, lease) = match self.exchange(connection, ask, body, slot, now).await {
            Ok(answered) => answered,
            Err(SendFailure { again: Some(body), refusal }) => {
                pool::evict(self.id(), failed);
                Box::pin(async {
                    slot.renew().await.map_err(|_| refusal)?;
                    self.send_on_new_connection(ask, body, slot, Some(failed)).await
                })
                .await?
            }
            Err(lost) => return Err(lost.refusal),
        };
        self.accept_response(response, lease, total, ask, slot)
    }

    /// Returns whether Cal.com may say that it did not process a request. Only HTTP/2 can say so.
    pub fn may_be_unprocessed(&self) -> bool {
        self.offers_http2
    }

    /// Sends a request on a connection that was opened after the one numbered `failed`, if it failed on one.
    async fn send_on_new_connection(
        &self,
        ask: &UpstreamRequest<'_, '_>,
        body: Upload,
        slot: &mut Slot,
        failed: Option<u64>,
    ) -> Result<Answered, Refusal> {
        let connection = self.connect(failed).await?;
        self.exchange(connection, ask, body, slot, Instant::now()).await.map_err(|lost| lost.refusal)
    }

    /// Builds the request that goes upstream.
    fn request(
        &self,
        ask: &UpstreamRequest<'_, '_>,
        body: Upload,
        version: Version,
    ) -> Result<Request<Upload>, Refusal> {
        let grant = ask.permit.grant();
        let path = self.path(grant.route(), &ask.head.uri)?;
        let mut headers = headers::request_headers(&ask.head.headers, &self.extra_headers);
        if let Some(version) = self.api_version(grant.route(), &ask.head.headers)? {
            headers.insert(API_VERSION, version.clone());
        }
        if grant.route().candidates().iter().any(|endpoint| endpoint.credential_operation) {
            // The gateway searches the response for tokens, so it must not be compressed.
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        headers.insert(VIA, headers::via(ask.head));
        headers.insert(REQUEST_ID, ask.request_id.clone());
        match ask.auth_headers.clone() {
            AuthHeaders::Nothing => {}
            AuthHeaders::Bearer(value) => {
                headers.insert(http::header::AUTHORIZATION, value);
                if let Some(id) = grant.caller().client_id_beside_bearer() {
                    headers.insert(CLIENT_ID, id.clone());
                }
            }
            AuthHeaders::Client { id, secret } => {
                headers.insert(CLIENT_ID, id);
                headers.insert(SECRET_KEY, secret);
            }
        }
        let uri = if version == Version::HTTP_2 {
            let absolute = Uri::builder().scheme("https").authority(self.authority.as_str()).path_and_query(path);
            absolute.build().map_err(|_| Refusal::Internal)?
        } else {
            headers.insert(HOST, self.authority_value.clone());
            if !body.is_end_stream() && body.size_hint().exact().is_none() {
                // Without this field, hyper leaves out the body of a GET or HEAD.
                headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            Uri::from(path)
        };
        let mut request = Request::new(body);
        *request.method_mut() = ask.head.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Returns the upstream path and query. They are usually the caller's own, which are already parsed.
    fn path(&self, matched: &RouteMatch<'_>, asked: &Uri) -> Result<PathAndQuery, Refusal> {
        let query = asked.query().unwrap_or_default();
        let is_as_written = self.base_path.is_empty() && query.is_ascii() && matched.is_canonical();
        if let Some(given) = asked.path_and_query().filter(|_| is_as_written) {
            return Ok(given.clone());
        }
        let mut path = String::with_capacity(self.base_path.len() + asked.path().len() + 64);
        path.push_str(&self.base_path);
        matched.write_upstream_path(&mut path);
        if asked.query().is_some() {
            path.push('?');
            // Most servers accept a raw non-ASCII character over HTTP/1.1, but HTTP/2 does not allow it (RFC 9113 §8.3.1).
            path.extend(utf8_percent_encode(query, CONTROLS));
        }
        PathAndQuery::from_maybe_shared(Bytes::from(path)).map_err(|_| Refusal::Internal)
    }

    /// Returns the API version for the upstream request: the client's. If the client sends none, it is the catalog's if the
    /// operator pins versions, and otherwise none. Without the header, Cal.com uses another version (FACTS §4).
    ///
    /// # Errors
    /// [`Refusal::InvalidHeader`] if the client sends several.
    pub fn api_version<'r>(
        &self,
        matched: &'r RouteMatch<'_>,
        sent: &'r HeaderMap,
    ) -> Result<Option<&'r HeaderValue>, Refusal> {
        let pinned =
            || matched.endpoint().filter(|_| self.pins_api_version)?.api_version.as_ref().map(ApiVersion::value);
        Ok(headers::api_version(sent).map_err(Refusal::InvalidHeader)?.or_else(pinned))
    }

    /// Accepts a response, unless its framing is ambiguous.
    fn accept_response(
        &self,
        response: Response<Incoming>,
        lease: Option<Lease>,
        total: Deadline,
        ask: &UpstreamRequest<'_, '_>,
        slot: &mut Slot,
    ) -> Result<Response<Download>, Refusal> {
        slot.record_response(response.status(), response.headers(), || matched_key(ask.permit.grant().route()))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS || has_two_lengths(response.headers()) {
            return Err(Refusal::UpstreamInvalid);
        }
        let (mut head, body) = response.into_parts();
        // Extensions belong to the upstream hop: hyper keeps the reason phrase there, and would forward it.
        head.extensions.clear();
        // The version describes the upstream hop (RFC 9110 §6.2), not the hop to the client.
        head.version = Version::HTTP_11;
        let address = UpstreamAddress { authority: &self.authority, base_path: &self.base_path };
        headers::filter_response(&mut head.headers, address);
        Ok(Response::from_parts(head, Download::new(body, Instant::now(), total, lease)))
    }
}

/// Returns the TLS connector and the name that the certificate must have. `None` for plain HTTP.
fn connector(config: &UpstreamConfig) -> Result<Option<(TlsConnector, ServerName<'static>)>, String> {
    let base = &config.base_url;
    if !base.tls {
        return Ok(None);
    }
    let protocols: &[&[u8]] = if config.http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    let client = tls::client(tls::trusted(config.ca_file.as_deref(), config.roots)?, protocols)?;
    let name = ServerName::try_from(base.host.clone()).map_err(|_| "the host is not a name TLS can check")?;
    Ok(Some((TlsConnector::from(client), name)))
}

/// Returns whether a response states its length in two ways (RFC 9112 §6.3), even if it has no body, as for `HEAD`.
fn has_two_lengths(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return false };
    let is_number = !first.is_empty() && first.as_bytes().iter().all(u8::is_ascii_digit);
    !is_number || lengths.next().is_some() || headers.contains_key(TRANSFER_ENCODING)
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// Response, and its part of the connection.
type Answered = (Response<Incoming>, Option<Lease>);

/// Formats `host:port`, with an IPv6 address in brackets.
fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn next_id() -> u64 {
    static IDS: AtomicU64 = AtomicU64::new(1);
    IDS.fetch_add(1, Ordering::Relaxed)
}
