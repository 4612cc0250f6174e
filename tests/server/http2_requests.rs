//! Requests over HTTP/2 that are unusual or malformed.

use std::future::poll_fn;

use bytes::Bytes;
use h2::Reason;
use h2::client::{self, ResponseFuture, SendRequest};
use http::{Method, Request, StatusCode};
use tokio::net::TcpStream;

use crate::harness::{Gateway, Key, Setup, Upstream};

struct Client(SendRequest<Bytes>);

impl Client {
    async fn of(gateway: &Gateway) -> Self {
        let stream = TcpStream::connect(&gateway.address).await.unwrap();
        let (requests, connection) = client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self(requests)
    }

    /// Sends the head of a request, and then the pieces of its body; the last one ends it.
    async fn send(
        &mut self,
        key: &Key,
        request: &str,
        fields: &[(&str, &str)],
        body: &[&'static str],
    ) -> ResponseFuture {
        let (method, path) = request.split_once(' ').unwrap();
        let mut builder = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap());
        builder = builder.uri(format!("http://h{path}")).header("x-api-key", &key.text);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        let mut ready = self.0.clone().ready().await.unwrap();
        let (response, mut stream) = ready.send_request(builder.body(()).unwrap(), body.is_empty()).unwrap();
        for (n, piece) in body.iter().enumerate() {
            let _ = stream.send_data(Bytes::from_static(piece.as_bytes()), n + 1 == body.len());
        }
        response
    }
}

fn run(test: impl AsyncFnOnce(&Gateway, &Upstream, &Key)) {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("unrestricted", &key).start();
    tokio::runtime::Runtime::new().unwrap().block_on(test(&gateway, &upstream, &key));
}

#[test]
fn expect_continue_is_answered_before_the_body_is_sent() {
    run(async |gateway, upstream, key| {
        let mut client = Client::of(gateway).await;
        let request = Request::post("http://h/v2/bookings").header("x-api-key", &key.text);
        let request = request.header("expect", "100-Continue").header("content-length", "2").body(()).unwrap();
        let (mut response, mut stream) = client.0.send_request(request, false).unwrap();
        let interim = poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(interim.status(), StatusCode::CONTINUE);
        stream.send_data(Bytes::from_static(b"{}"), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        assert_eq!(upstream.only_request().body, b"{}");
        assert!(upstream.only_request().headers("expect").is_empty());
    });
}

#[test]
fn a_request_that_is_refused_at_once_gets_no_100() {
    run(async |gateway, upstream, _| {
        let mut client = Client::of(gateway).await;
        let request = Request::post("http://h/v2/webhooks").header("expect", "100-continue").body(()).unwrap();
        let (mut response, _stream) = client.0.send_request(request, false).unwrap();
        assert!(!matches!(poll_fn(|cx| response.poll_informational(cx)).await, Some(Ok(_))));
        assert_eq!(response.await.unwrap().status(), 401);
        assert_eq!(upstream.requests().len(), 0);
    });
}

#[test]
fn a_length_that_is_wrong_resets_the_stream_and_nothing_goes_on() {
    run(async |gateway, upstream, key| {
        for (length, body) in [("0", &["x"][..]), ("0", &["", "x"]), ("5", &["{}"]), ("5", &["{}", ""]), ("1", &["{}"])]
        {
            let mut client = Client::of(gateway).await;
            let response = client.send(key, "POST /v2/bookings", &[("content-length", length)], body).await;
            let fault = response.await.expect_err("a malformed request has no response");
            assert_eq!(fault.reason(), Some(Reason::PROTOCOL_ERROR), "{length} {body:?}");
        }
        assert_eq!(upstream.requests().len(), 0);
        let mut client = Client::of(gateway).await;
        for (length, body) in [("0", &[""][..]), ("0", &[]), ("2", &["{", "}"]), ("2", &["{}", ""])] {
            let response = client.send(key, "POST /v2/bookings", &[("content-length", length)], body).await;
            assert_eq!(response.await.unwrap().status(), 200, "{length} {body:?}");
        }
        let bodies: Vec<_> = upstream.requests().iter().map(|asked| asked.body.len()).collect();
        assert_eq!(bodies, [0, 0, 2, 2]);
    });
}

#[test]
fn a_get_keeps_its_body_and_trailers_stay_here() {
    run(async |gateway, upstream, key| {
        let mut client = Client::of(gateway).await;
        assert_eq!(client.send(key, "GET /v2/me", &[], &["{}"]).await.await.unwrap().status(), 200);
        assert_eq!(upstream.only_request().body, b"2\r\n{}\r\n0\r\n\r\n");
        let request = Request::post("http://h/v2/bookings").header("x-api-key", &key.text).body(()).unwrap();
        let (response, mut stream) = client.0.send_request(request, false).unwrap();
        stream.send_data(Bytes::from_static(b"{}"), false).unwrap();
        stream
            .send_trailers([("x-cal-secret-key".parse().unwrap(), "mine".parse().unwrap())].into_iter().collect())
            .unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        assert_eq!(upstream.requests()[1].body, b"2\r\n{}\r\n0\r\n\r\n");
    });
}

#[test]
fn a_response_has_a_date_and_no_fields_of_a_connection() {
    run(async |gateway, _, key| {
        let mut client = Client::of(gateway).await;
        for path in ["GET /v2/me", "GET /v2/nothing", "HEAD /v2/nothing"] {
            let response = client.send(key, path, &[], &[]).await.await.unwrap();
            assert!(response.headers().contains_key("date"), "{path}");
            assert!(response.headers().contains_key("content-length"), "{path}");
            assert!(!response.headers().contains_key("connection"), "{path}");
        }
    });
}
