//! HTTP/1.1 upstream that records each request, and sends the exact bytes that a test returns.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

use super::patience;

/// Returns the response to a request. An empty response closes the connection.
type Respond = dyn Fn(&ReceivedRequest) -> Vec<u8> + Send + Sync;

/// A request that the upstream received.
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
    pub request_line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Number of its connection, from 0.
    pub connection: usize,
}

impl ReceivedRequest {
    pub fn headers(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    pub fn target(&self) -> &str {
        self.request_line.split(' ').nth(1).unwrap()
    }
}

/// A listening upstream.
pub struct Upstream {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<ReceivedRequest>>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    serving: Arc<AtomicUsize>,
}

/// A 200 response with a small JSON body.
pub const OK: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{\"status\":\"success\"}";

impl Upstream {
    /// Starts an upstream that answers each request with [`OK`].
    pub fn start() -> Self {
        Self::answering(|_| OK.into())
    }

    /// Starts an upstream that answers with what `respond` returns.
    pub fn answering(respond: impl Fn(&ReceivedRequest) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<ReceivedRequest>>> = Arc::default();
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let serving = Arc::new(AtomicUsize::new(0));
        let (log, accepted, respond): (_, _, Arc<Respond>) = (requests.clone(), open.clone(), Arc::new(respond));
        let served = serving.clone();
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (stream, log, respond) = (stream.unwrap(), log.clone(), respond.clone());
                accepted.lock().push(stream.try_clone().unwrap());
                let served = served.clone();
                served.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    serve(stream, connection, &log, &*respond);
                    served.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, requests, open, serving }
    }

    /// Starts an upstream that sends the chunks of a request body back as they arrive, on one connection.
    pub fn echoing() -> Self {
        let upstream = Self::answering(|_| Vec::new());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = Vec::new();
            while find(&bytes, b"\r\n\r\n").is_none() {
                read_more(&mut stream, &mut bytes);
            }
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            let early = bytes.split_off(find(&bytes, b"\r\n\r\n").unwrap() + 4);
            stream.write_all(&early).unwrap();
            let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
        });
        Self { address, ..upstream }
    }

    /// Closes every connection, as a server closes idle ones.
    pub fn close_connections(&self) {
        for stream in self.open.lock().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Returns the number of connections that the gateway has not closed.
    pub fn open_connections(&self) -> usize {
        self.serving.load(Ordering::SeqCst)
    }

    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the requests so far.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.requests.lock().clone()
    }

    /// Returns the request. Panics unless there was exactly one.
    pub fn only_request(&self) -> ReceivedRequest {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }
}

fn serve(mut stream: TcpStream, connection: usize, log: &Mutex<Vec<ReceivedRequest>>, respond: &Respond) {
    stream.set_read_timeout(Some(patience())).unwrap();
    let mut bytes = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut bytes, connection) {
        log.lock().push(request.clone());
        let response = respond(&request);
        if response.is_empty() || stream.write_all(&response).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

fn read_request(stream: &mut TcpStream, bytes: &mut Vec<u8>, connection: usize) -> Option<ReceivedRequest> {
    let end = loop {
        if let Some(end) = find(bytes, b"\r\n\r\n") {
            break end;
        }
        read_more(stream, bytes)?;
    };
    let head = String::from_utf8(bytes.drain(..end + 4).collect()).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let request_line = lines.next().unwrap().to_owned();
    let split = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_owned(), v.to_owned())).unwrap();
    let mut request =
        ReceivedRequest { request_line, headers: lines.map(split).collect(), body: Vec::new(), connection };
    if request.headers("transfer-encoding") == ["chunked"] {
        let end = loop {
            if let Some(end) = find(bytes, b"0\r\n\r\n") {
                break end + 5;
            }
            read_more(stream, bytes)?;
        };
        request.body = bytes.drain(..end).collect();
    }
    let length = request.headers("content-length").first().map_or(0, |length| length.parse().unwrap());
    while bytes.len() < length {
        read_more(stream, bytes)?;
    }
    request.body.extend(bytes.drain(..length));
    Some(request)
}

fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0; 8192];
    let n = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
    bytes.extend_from_slice(&chunk[..n]);
    Some(())
}

/// Returns the position of `wanted`.
pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
