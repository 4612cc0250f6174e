//! Tunnel through an HTTP proxy by the method CONNECT (RFC 9110 §9.3.6).

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::proxy::Proxy;

/// Maximum length of the head of a proxy's response, 16 KiB.
const MAX_HEAD: usize = 16 * 1024;

/// Opens a tunnel to `target`, which is `host:port`, through the proxy behind `tcp`.
///
/// # Errors
/// The failure with the proxy's address and status, for the log.
#[expect(clippy::disallowed_methods, reason = "the task that opens a tunnel ends with the tunnel")]
pub(super) async fn tunnel(tcp: TcpStream, proxy: &Proxy, target: &str) -> Result<TcpStream, String> {
    let failed = |what: &str| format!("the proxy {} {what}", proxy.address());
    let broken = |fault: hyper::Error| failed(&format!("did not answer CONNECT: {fault}"));
    let handshake = http1::Builder::new().max_header_size(MAX_HEAD).handshake(TokioIo::new(tcp)).await;
    let (mut sender, connection) = handshake.map_err(broken)?;
    let driver = tokio::spawn(connection.with_upgrades());
    let response = sender.send_request(request(proxy, target).ok_or_else(|| failed("cannot be asked"))?).await;
    let response = response.map_err(broken)?;
    if !response.status().is_success() {
        driver.abort();
        let remedy = match response.status() {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                "; write user and password into the URL of upstream.proxy or HTTPS_PROXY"
            }
            StatusCode::FORBIDDEN => "; have it allow that address",
            _ => "",
        };
        return Err(failed(&format!("answered CONNECT {target} with {}{remedy}", response.status().as_u16())));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(broken)?;
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().map_err(|_| failed("cannot be used"))?;
    // In TLS the client sends first. Earlier bytes do not come from the target.
    if parts.read_buf.is_empty() { Ok(parts.io.into_inner()) } else { Err(failed("sent bytes of its own")) }
}

fn request(proxy: &Proxy, target: &str) -> Option<Request<Empty<Bytes>>> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = target.parse().ok()?;
    request.headers_mut().insert(HOST, HeaderValue::from_str(target).ok()?);
    if let Some(authorization) = proxy.authorization() {
        request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
    }
    Some(request)
}
