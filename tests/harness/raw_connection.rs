//! Raw HTTP/1.1 client: sends exact bytes, and reads responses without a library.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, SockRef, Socket, Type};

use super::patience;

/// Connects with a receive buffer of 4 KiB, so that a response soon fills it.
pub fn connect_with_small_buffer(address: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.parse::<SocketAddr>().unwrap().into()).expect("the gateway accepts");
    socket.set_read_timeout(Some(patience())).unwrap();
    socket.into()
}

/// HTTP/1.1 connection to a server.
pub struct RawConnection(BufReader<TcpStream>);

/// A response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Status line and header fields, as received.
    pub head: String,
    pub body: Vec<u8>,
}

impl RawConnection {
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("the gateway accepts"))
    }

    /// Uses an existing connection.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(patience())).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        // The server may have closed the connection, which the response shows.
        let _ = self.0.get_mut().write_all(bytes.as_ref());
        self
    }

    /// Sends a request without a body, and reads the response.
    pub fn ask(&mut self, request: &str, headers: &[&str]) -> Response {
        let lines = lines(headers);
        self.send(format!("{request} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"));
        if request.starts_with("HEAD ") { self.read_head() } else { self.read_response() }
    }

    /// Sends a request with a body, and reads the response.
    pub fn ask_with(&mut self, request: &str, headers: &[&str], body: &str) -> Response {
        let length = format!("Content-Length: {}\r\n", body.len());
        let lines = lines(headers) + &length;
        self.send(format!("{request} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n{body}"));
        self.read_response()
    }

    /// Reads the head of a response.
    pub fn read_head(&mut self) -> Response {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = self.0.read_line(&mut head).expect("a response within the time limit");
            assert!(read > 0, "the connection ended within the head of a response: {head:?}");
        }
        let status = head.get(9..12).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no status in {head:?}"));
        Response { status, head, body: Vec::new() }
    }

    /// Reads a response with its body.
    pub fn read_response(&mut self) -> Response {
        let mut response = self.read_head();
        if response.header("transfer-encoding") == Some("chunked") {
            loop {
                let chunk = self.read_chunk();
                if chunk.is_empty() {
                    return response;
                }
                response.body.extend_from_slice(&chunk);
            }
        }
        let length = response.header("content-length").map_or(0, |length| length.parse().unwrap());
        response.body = vec![0; length];
        self.0.read_exact(&mut response.body).expect("a whole body");
        response
    }

    /// Reads one chunk of a chunked body. The last one is empty.
    pub fn read_chunk(&mut self) -> Vec<u8> {
        let mut size = String::new();
        self.0.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim_end(), 16).expect("the size of a chunk");
        let mut chunk = vec![0; size + 2];
        self.0.read_exact(&mut chunk).expect("a whole chunk");
        chunk.truncate(size);
        chunk
    }

    /// Reads until the server closes the connection.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest);
        rest
    }

    /// Waits for data or the end of the connection. Returns whether the connection has ended.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.0.fill_buf(), Ok([]) | Err(_))
    }

    /// Closes the sending side. Responses can still be read.
    pub fn shutdown_write(&mut self) -> &mut Self {
        let _ = self.0.get_mut().shutdown(std::net::Shutdown::Write);
        self
    }

    /// Resets the connection.
    pub fn reset(self) {
        let stream = self.0.into_inner();
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

impl Response {
    /// Returns the value of a header field. Panics if the field occurs more than once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.headers(name);
        assert!(all.len() < 2, "{name} occurs more than once in {}", self.head);
        all.first().copied()
    }

    pub fn headers(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    pub fn code(&self) -> Option<&str> {
        self.header("x-calgate-code")
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

fn lines(headers: &[&str]) -> String {
    headers.iter().flat_map(|line| [line, "\r\n"]).collect()
}
