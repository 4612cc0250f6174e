//! Upstream behind the proxy: answers each request, which has no body, with 1 KB of JSON at once.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

const BODY: usize = 1024;

pub(crate) struct Upstream {
    listener: TcpListener,
    /// Open connections. `None` for a closed one.
    connections: Vec<Option<(TcpStream, Vec<u8>)>>,
    answer: Vec<u8>,
}

impl Upstream {
    pub(crate) fn listen(address: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {BODY}\r\n\r\n");
        let text = "x".repeat(BODY - r#"{"data":""}"#.len());
        let answer = format!(r#"{head}{{"data":"{text}"}}"#).into_bytes();
        Ok(Self { listener, connections: Vec::new(), answer })
    }

    /// Accepts a connection and passes its number to `watch`.
    pub(crate) fn accept(&mut self, watch: impl FnOnce(usize, &TcpStream) -> io::Result<()>) -> io::Result<()> {
        let (connection, _) = self.listener.accept()?;
        connection.set_nodelay(true)?;
        connection.set_nonblocking(true)?;
        watch(self.connections.len(), &connection)?;
        self.connections.push(Some((connection, Vec::new())));
        Ok(())
    }

    /// Reads from a connection and answers each complete request.
    pub(crate) fn answer(&mut self, index: usize) -> io::Result<()> {
        let Some(slot) = self.connections.get_mut(index) else { return Ok(()) };
        let Some((connection, request)) = slot else { return Ok(()) };
        let mut chunk = [0; 4096];
        let read = connection.read(&mut chunk)?;
        if read == 0 {
            *slot = None;
            return Ok(());
        }
        request.extend_from_slice(chunk.get(..read).unwrap_or_default());
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            connection.write_all(&self.answer)?;
        }
        Ok(())
    }
}

impl AsFd for Upstream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}
