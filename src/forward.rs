//! Seventh stage: sends the rebuilt request to Cal.com, and returns the response.
//!
//! Seventh stage: [`Upstream::send`]. The path is made from the catalog's template, the headers by the rules of `headers`,
//! and the credential is added last. hyper's client is used here and nowhere else.

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

/// Where Cal.com is and how it is asked.
pub struct Upstream {
    /// Tells the pools of one configuration's upstream from another's; a later one has the larger number. It changes when all
    /// connections are to be new.
    id: AtomicU64,
    /// What it was made from.
    fingerprint: UpstreamFingerprint,
    host: String,
    port: u16,
    authority: String,
    authority_value: HeaderValue,
    base_path: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    offers_http2: bool,
    /// The proxy that leads there.
    proxy: Option<Proxy>,
    /// What the proxy is asked for: `host:port`.
    tunnel_target: String,
    /// The host that is connected to, which may be the proxy, and its port.
    connect_to: (String, u16),
    /// Its addresses.
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

/// What is asked, before it has the form of any HTTP version.
pub struct UpstreamRequest<'a, 'p> {
    /// The caller's own head.
    pub head: &'a request::Parts,
    /// The proof that it may be sent.
    pub permit: &'a Permit<'p>,
    /// As whom.
    pub auth_headers: &'a AuthHeaders,
    /// The request's id, for Cal.com's log as for ours.
    pub request_id: &'a HeaderValue,
    /// When it is sent.
    pub at: std::time::Instant,
    /// Whether any of it may have been written, and have been carried out.
    pub may_be_done: &'a AtomicBool,
}

impl UpstreamRequest<'_, '_> {
    /// Notes whether any of the request may have been written.
    fn note_sending(&self, slot: &mut Slot, may_be_done: bool) {
        self.may_be_done.store(may_be_done, Ordering::Relaxed);
        if may_be_done { slot.sending() } else { slot.not_sent() }
    }
}

impl Upstream {
    /// Prepares the upstream of a configuration. It goes on with the addresses that `previous` knows, if both connect to the
    /// same host.
    ///
    /// # Errors
    /// What cannot be used, in words.
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

    /// The request headers that are forwarded beside the usual ones.
    pub fn extra_headers(&self) -> &[HeaderName] {
        &self.extra_headers
    }

    /// Whether it is what would be made of that: then a reload keeps it, and its connections.
    pub fn is_built_from(&self, config: &UpstreamConfig, limits: &Bounds) -> bool {
        self.fingerprint == UpstreamFingerprint::of(config, limits)
    }

    /// Returns the longest time from taking a place in the budget to the head of the response.
    pub fn response_within(&self) -> Duration {
        self.response_within
    }

    /// Has every request from now on use a new connection, to addresses that are looked up anew. Those under way end on theirs.
    pub fn reconnect(&self) {
        self.id.store(next_id(), Ordering::Relaxed);
        self.resolver.expire();
    }

    fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }

    /// Sends a permitted request and waits for the head of the answer. The answer's headers are clean: what belongs to
    /// the upstream hop is gone.
    ///
    /// A request is sent a second time, on another connection, only where that cannot do a thing twice: none of it was
    /// written, or Cal.com says that it left it alone, or it is a `GET` or `HEAD` of which no byte of an answer came. Where
    /// the first sending may have reached Cal.com, the second takes a slot of its own, and the caller is told of the first
    /// failure if there is none.
    ///
    /// # Errors
    /// [`Refusal::UpstreamUnreachable`], [`Refusal::UpstreamTimeout`], [`Refusal::UpstreamInvalid`], and what is wrong
    /// with the caller's body.
    pub async fn send(
        &self,
        ask: &UpstreamRequest<'_, '_>,
        body: Upload,
        slot: &mut Slot,
    ) -> Result<Response<Download>, Refusal> {
        let now = Instant::from_std(ask.at);
        let total = Deadline::after_moment(now, self.total_timeout);
        let Some(connection) = pool::acquire(self.id(), now) else {
            // What is rare is boxed, here and below: it is large, and every request in flight would carry room for it.
            let (response, lease) = Box::pin(self.send_on_new_connection(ask, body, slot, None)).await?;
            return self.accept_response(response, lease, total, ask, slot);
        };
        let failed = connection.number();
        let (response, lease) = match self.exchange(connection, ask, body, slot, now).await {
            Ok(answered) => answered,
            Err(SendFailure { again: Some(body), refusal }) => {
                pool::evict(self.id(), failed);
                Box::pin(async {
                    slot.again().await.map_err(|_| refusal)?;
                    self.send_on_new_connection(ask, body, slot, Some(failed)).await
                })
                .await?
            }
            Err(lost) => return Err(lost.refusal),
        };
        self.accept_response(response, lease, total, ask, slot)
    }

    /// Whether a request may come back as one that Cal.com left alone, to be sent once more: HTTP/2 has words for that.
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

    /// The request as it goes upstream.
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
            // Tokens in the answer have to be found there.
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

    /// The path that goes upstream, and the query. Mostly both are what the caller wrote, which has been parsed already.
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
            // A raw character beyond ASCII means the same to most servers over HTTP/1.1, but HTTP/2 carries none (RFC 9113 §8.3.1).
            path.extend(utf8_percent_encode(query, CONTROLS));
        }
        PathAndQuery::from_maybe_shared(Bytes::from(path)).map_err(|_| Refusal::Internal)
    }

    /// The version that a request goes upstream with: the one that the client sends. Where it sends none, that is none, or
    /// the catalog's if the operator pins versions: without the header, Cal.com uses another version (FACTS §4).
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

    /// Takes an answer, unless it is one that could be read in two ways.
    fn accept_response(
        &self,
        response: Response<Incoming>,
        lease: Option<Lease>,
        total: Deadline,
        ask: &UpstreamRequest<'_, '_>,
        slot: &mut Slot,
    ) -> Result<Response<Download>, Refusal> {
        slot.answered(response.status(), response.headers(), || matched_key(ask.permit.grant().route()))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS || has_two_lengths(response.headers()) {
            return Err(Refusal::UpstreamInvalid);
        }
        let (mut head, body) = response.into_parts();
        // Extensions are of the upstream hop: hyper keeps the reason phrase there, and would send it on.
        head.extensions.clear();
        // The version is that of the hop the answer came by (RFC 9110 §6.2), not of the one it goes out by.
        head.version = Version::HTTP_11;
        let address = UpstreamAddress { authority: &self.authority, base_path: &self.base_path };
        headers::filter_response(&mut head.headers, address);
        Ok(Response::from_parts(head, Download::new(body, Instant::now(), total, lease)))
    }
}

/// Returns what connects over TLS, and the name that the certificate has to have; `None` for plain HTTP.
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

/// Returns whether a response's length is stated in two ways (RFC 9112 §6.3), also where it has no body, as for `HEAD`.
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

/// The head of a response, its body to come, and what that holds of the connection.
type Answered = (Response<Incoming>, Option<Lease>);

/// `host:port`, with an IPv6 address in brackets.
fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn next_id() -> u64 {
    static IDS: AtomicU64 = AtomicU64::new(1);
    IDS.fetch_add(1, Ordering::Relaxed)
}
