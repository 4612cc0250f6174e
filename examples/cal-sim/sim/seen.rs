//! Log of the requests that arrived, for tests.

use std::collections::VecDeque;

use parking_lot::{Mutex, MutexGuard};

/// Maximum number of bytes of a body that are kept, 64 KiB.
const MOST_BODY: usize = 64 * 1024;

/// Request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Target as the client sent it.
    pub target: String,
    /// Version: `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Header fields, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// First 64 KiB of the body.
    pub body: Vec<u8>,
    /// Length of the body that has arrived so far.
    pub body_length: u64,
    /// Trailer fields.
    pub trailers: Vec<(String, String)>,
    /// Operation, as `METHOD /path/{template}`.
    pub operation: Option<String>,
    /// Status of the response. `None` if there is no response yet.
    pub status: Option<u16>,
}

impl Seen {
    /// Returns the value of a header that occurs once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (Some(value), None) => Some(value),
            _ => None,
        }
    }

    /// Adds a piece of the body.
    pub(super) fn take_body(&mut self, piece: &[u8]) {
        let room = MOST_BODY.saturating_sub(self.body.len());
        self.body.extend(piece.iter().take(room));
        self.body_length += piece.len() as u64;
    }
}

/// Number of a request, from 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number(usize);

/// Requests so far, in the order in which their heads arrived.
#[derive(Debug)]
pub(super) struct Log {
    kept: Mutex<Kept>,
    most: usize,
}

#[derive(Debug, Default)]
struct Kept {
    requests: VecDeque<Seen>,
    /// Number of the first request that is kept.
    first: usize,
    /// Number at which the count starts.
    zero: usize,
}

impl Kept {
    fn next(&self) -> usize {
        self.first + self.requests.len()
    }
}

impl Log {
    pub(super) fn new(most: usize) -> Self {
        Self { kept: Mutex::default(), most }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock()
    }

    /// Adds a request.
    pub(super) fn note(&self, seen: impl FnOnce() -> Seen) -> Number {
        let mut kept = self.kept();
        let number = kept.next();
        if self.most == 0 {
            kept.first += 1;
            return Number(number);
        }
        if kept.requests.len() >= self.most {
            kept.requests.pop_front();
            kept.first += 1;
        }
        kept.requests.push_back(seen());
        Number(number)
    }

    /// Updates a request, if it is still kept.
    pub(super) fn amend(&self, number: Number, change: impl FnOnce(&mut Seen)) {
        let mut kept = self.kept();
        let index = number.0.checked_sub(kept.first);
        if let Some(seen) = index.and_then(|index| kept.requests.get_mut(index)) {
            change(seen);
        }
    }

    pub(super) fn all(&self) -> Vec<Seen> {
        self.kept().requests.iter().cloned().collect()
    }

    pub(super) fn count(&self) -> usize {
        let kept = self.kept();
        kept.next() - kept.zero
    }

    pub(super) fn forget(&self) {
        let mut kept = self.kept();
        kept.first = kept.next();
        kept.zero = kept.first;
        kept.requests.clear();
    }
}
