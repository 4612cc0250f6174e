//! Log of the requests that arrived, for tests.

use std::collections::VecDeque;

use parking_lot::{Mutex, MutexGuard};

/// Bytes of a body that are kept.
const MOST_BODY: usize = 64 * 1024;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its method.
    pub method: String,
    /// Its target as it was sent.
    pub target: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Header fields; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The first 64 KiB of the body.
    pub body: Vec<u8>,
    /// Bytes of the whole body, as far as it has arrived.
    pub body_length: u64,
    /// Trailer fields.
    pub trailers: Vec<(String, String)>,
    /// The operation that it asked for, as `METHOD /path/{template}`.
    pub operation: Option<String>,
    /// The status it was answered with; `None` if it has not been answered (yet).
    pub status: Option<u16>,
}

impl Seen {
    /// The value of a header, if it came once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (Some(value), None) => Some(value),
            _ => None,
        }
    }

    /// Takes in a piece of its body.
    pub(super) fn take_body(&mut self, piece: &[u8]) {
        let room = MOST_BODY.saturating_sub(self.body.len());
        self.body.extend(piece.iter().take(room));
        self.body_length += piece.len() as u64;
    }
}

/// A request's number, from 0 on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number(usize);

/// The requests so far, in the order of their heads' arrival.
#[derive(Debug)]
pub(super) struct Log {
    kept: Mutex<Kept>,
    most: usize,
}

#[derive(Debug, Default)]
struct Kept {
    requests: VecDeque<Seen>,
    /// The number of the first one that is kept.
    first: usize,
    /// The number that the count begins at.
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

    /// Notes a request.
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

    /// Adds to what is known of a request, if it is still kept.
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
