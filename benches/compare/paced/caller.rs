//! One client connection of the load generator: sends a request, then waits for the response.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::invalid;
use super::schedule::Due;

pub(crate) struct Caller {
    connection: TcpStream,
    /// Number of the next request.
    next: usize,
    /// Start of the latency of the current request.
    from: Instant,
    answer: Vec<u8>,
}

impl Caller {
    pub(crate) fn connect(address: &str, index: usize) -> io::Result<Self> {
        let connection = TcpStream::connect(address)?;
        connection.set_nodelay(true)?;
        connection.set_nonblocking(true)?;
        Ok(Self { connection, next: index, from: Instant::now(), answer: Vec::new() })
    }

    /// Sends the next of these requests.
    pub(crate) fn ask(&mut self, requests: &[Vec<u8>], due: Due) -> io::Result<()> {
        let request = requests.get(self.next % requests.len().max(1)).ok_or_else(|| invalid("there are no keys"))?;
        self.next += 61;
        self.answer.clear();
        self.from = if due.late { due.at } else { Instant::now() };
        self.connection.write_all(request)
    }

    /// Returns the start of the latency, if the response is complete.
    pub(crate) fn hear(&mut self) -> io::Result<Option<Instant>> {
        let mut chunk = [0; 4096];
        let read = self.connection.read(&mut chunk)?;
        if read == 0 {
            return Err(invalid("the answer broke off"));
        }
        self.answer.extend_from_slice(chunk.get(..read).unwrap_or_default());
        Ok((length_of(&self.answer)? == Some(self.answer.len())).then_some(self.from))
    }
}

impl AsFd for Caller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// Returns the length of a response with its head, if the head is complete.
fn length_of(answer: &[u8]) -> io::Result<Option<usize>> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = answer.get(..end).unwrap_or_default();
    if !head.starts_with(b"HTTP/1.1 200 ") {
        return Err(invalid("the answer is not 200"));
    }
    let length = head.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Ok(Some(end + 4 + length.ok_or_else(|| invalid("the answer has no Content-Length"))?))
}
