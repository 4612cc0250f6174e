//! The gateway's own requests: what goes out, and whether a request without a response may have been carried out.

use std::net::TcpListener;
use std::sync::Arc;

use bytes::Bytes;
use calgate::config::Config;
use calgate::forward::{ApiError, ApiRequest, ApiResponse, Upstream};
use http::{HeaderMap, HeaderValue};

use crate::harness::frame_upstream::{go_away, ok, reset};
use crate::harness::{ConnectProxy, FrameUpstream, Upstream as RecordingUpstream};

/// Sends one request to the upstream of this `[upstream]` section.
fn call(upstream: &str, limits: &str) -> Result<ApiResponse, ApiError> {
    let config = Config::parse("calgate.toml", &format!("[upstream]\n{upstream}\n[limits]\n{limits}")).unwrap();
    let upstream = Upstream::new(&config.upstream, &config.limits, None).unwrap();
    let mut secret = HeaderValue::from_static("canary");
    secret.set_sensitive(true);
    let request = ApiRequest {
        path: "/v2/oauth/client/refresh".to_owned(),
        content_type: HeaderValue::from_static("application/json"),
        headers: HeaderMap::from_iter([(http::header::HeaderName::from_static("x-cal-secret-key"), secret)]),
        body: Bytes::from_static(b"{}"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(upstream.call(request))
}

fn call_to(base_url: &str) -> Result<ApiResponse, ApiError> {
    call(&format!("base_url = \"{base_url}\""), "upstream_headers = \"15s\"")
}

fn not_sent(result: Result<ApiResponse, ApiError>) -> String {
    match result {
        Err(ApiError::NotSent(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn unknown(result: Result<ApiResponse, ApiError>) -> String {
    match result {
        Err(ApiError::Unknown(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_has_only_the_headers_that_it_needs() {
    let upstream = RecordingUpstream::start();
    let response = call_to(&format!("{}/base", upstream.base_url())).unwrap();
    assert_eq!((response.status.as_u16(), &response.body[..]), (200, &br#"{"status":"success"}"#[..]));
    let request = upstream.only_request();
    assert_eq!(request.request_line, "POST /base/v2/oauth/client/refresh HTTP/1.1");
    assert_eq!(request.body, b"{}");
    let host = upstream.base_url().replace("http://", "");
    let mut headers = request.headers.clone();
    headers.sort();
    let expected = [
        ("accept", "application/json"),
        ("content-length", "2"),
        ("content-type", "application/json"),
        ("host", &host),
        ("user-agent", concat!("calgate/", env!("CARGO_PKG_VERSION"))),
        ("x-cal-secret-key", "canary"),
    ];
    assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn each_request_has_its_own_connection_and_follows_no_redirect() {
    let redirect = "HTTP/1.1 307 Temporary Redirect\r\nLocation: /v2/elsewhere\r\nContent-Length: 0\r\n\r\n";
    let upstream = RecordingUpstream::answering(move |_| redirect.into());
    for _ in 0..2 {
        assert_eq!(call_to(&upstream.base_url()).unwrap().status, 307);
    }
    assert_eq!(upstream.requests().iter().map(|request| request.connection).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_request_is_not_sent_if_the_connection_fails() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let reason = not_sent(call_to(&format!("http://{address}")));
    assert!(reason.starts_with("connecting failed") && reason.contains("refused"), "{reason}");

    let stranger = FrameUpstream::answering(|_, stream| ok(stream, b"{}"));
    let reason = not_sent(call_to(&stranger.base_url()));
    assert!(reason.contains("UnknownIssuer") && reason.contains("set upstream.ca_file"), "{reason}");
    assert_eq!(stranger.requests(), []);

    // It accepts the connection, and says nothing where the TLS handshake should come.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let section = format!("base_url = \"https://{}\"", silent.local_addr().unwrap());
    let reason = not_sent(call(&section, "upstream_connect = \"100ms\"\nupstream_headers = \"15s\""));
    assert!(reason.contains("limits.upstream_connect"), "{reason}");
}

#[test]
fn a_proxy_that_refuses_is_named_and_its_password_is_not() {
    let upstream = FrameUpstream::answering(|_, stream| ok(stream, b"{}"));
    let target = upstream.base_url().replace("https://", "").parse().unwrap();
    for (status, reason) in [("407 Proxy Authentication Required", "proxy authorization"), ("403 Forbidden", "tunnel")]
    {
        let proxy = ConnectProxy::answering(target, status);
        let url = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&url, format!("http://calgate:canary@{}", proxy.address())).unwrap();
        let section = format!("base_url = \"https://cal.example\"\nproxy = {{ file = \"{}\" }}", url.path().display());
        let said = not_sent(call(&section, "upstream_headers = \"15s\""));
        assert!(said.contains(&format!("the proxy {}", proxy.address())) && said.contains(reason), "{said}");
        assert!(!said.contains("canary"), "{said}");
        let asked = proxy.requests().remove(0).to_lowercase();
        // calgate:canary
        assert!(asked.contains("\r\nproxy-authorization: basic y2fsz2f0ztpjyw5hcnk=\r\n"), "{asked}");
        assert!(asked.starts_with("connect cal.example:443 http/1.1\r\n") && !asked.contains("user-agent"), "{asked}");
    }
    assert_eq!(upstream.requests(), []);
}

#[test]
fn a_request_whose_response_is_missing_may_have_been_carried_out() {
    let closing = RecordingUpstream::answering(|_| Vec::new());
    let invalid = RecordingUpstream::answering(|_| "this is not HTTP\r\n\r\n".into());
    for upstream in [closing, invalid] {
        for _ in 0..20 {
            unknown(call_to(&upstream.base_url()));
        }
        assert_eq!(upstream.requests().len(), 20, "each request was sent once");
    }
    let partial = RecordingUpstream::answering(|_| "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".into());
    let section = format!("base_url = \"{}\"", partial.base_url());
    assert!(unknown(call(&section, "upstream_connect = \"100ms\"\nupstream_headers = \"100ms\"")).contains("response"));
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n{}", "x".repeat(300_000));
    let long = RecordingUpstream::answering(move |_| long.clone().into());
    assert!(unknown(call_to(&long.base_url())).contains("length limit"));
}

#[test]
fn an_http2_request_that_upstream_ends_is_unknown_and_sent_once() {
    const INTERNAL_ERROR: u32 = 2;
    const REFUSED_STREAM: u32 = 7;
    let ends = [reset(1, INTERNAL_ERROR), reset(1, REFUSED_STREAM), go_away(0, 0)];
    for end in ends {
        let upstream = FrameUpstream::answering(move |_, _| end.clone());
        let section = format!("base_url = \"{}\"\n{}", upstream.base_url(), upstream.ca_file());
        let reason = unknown(call(&section, "upstream_headers = \"15s\""));
        assert!(reason.contains("HTTP/2"), "{reason}");
        assert_eq!(upstream.requests(), [(0, 1)]);
    }
}

#[test]
fn a_request_waits_no_longer_than_the_limit_for_its_response() {
    let gate = Arc::new(parking_lot::Mutex::new(()));
    let held = gate.lock();
    let waiting = gate.clone();
    let upstream = RecordingUpstream::answering(move |_| {
        drop(waiting.lock());
        Vec::new()
    });
    let section = format!("base_url = \"{}\"", upstream.base_url());
    let reason = unknown(call(&section, "upstream_connect = \"100ms\"\nupstream_headers = \"100ms\""));
    assert_eq!(
        reason,
        "no response within limits.upstream_lookup, limits.upstream_connect and limits.upstream_headers together"
    );
    drop(held);
}
