//! Rules for the bytes of a request's head that hyper does not keep (RFC 9112): lines end with CR LF, the target has no
//! fragment, and the body is framed in one way.
//!
//! hyper takes a bare line feed, cuts a fragment off, and lets `Transfer-Encoding` win over `Content-Length`; a proxy in
//! front of the gateway may see another request in the same bytes.

use memchr::memchr;
use smallvec::SmallVec;

const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";

/// Where in a head the stream is. Once requests come ahead of answers, heads are not scanned: where they begin only hyper
/// knows, and what hyper makes of them is what is forwarded, whatever else their bytes could mean.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    /// How the current line begins: as much as a field name can be told by, and a length read.
    start: SmallVec<[u8; 40]>,
    last: Option<u8>,
    part: Part,
    has_length: bool,
    has_coding: bool,
    /// `Content-Length`, and how many bytes came behind the head.
    length: u64,
    behind: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    #[default]
    RequestLine,
    Fields,
    Over,
}

impl HeadScan {
    /// The scan of a stream that is not in a head.
    pub(super) fn over() -> Self {
        Self { part: Part::Over, ..Self::default() }
    }

    /// Looks at `new`, which came behind what was looked at before.
    ///
    /// # Errors
    /// The rule that is broken.
    pub(super) fn go_on_with(&mut self, new: &[u8]) -> Result<(), &'static str> {
        let mut rest = new;
        while self.part != Part::Over && !rest.is_empty() {
            let end = memchr(b'\n', rest);
            let (piece, behind) = rest.split_at(end.unwrap_or(rest.len()));
            rest = behind.get(1..).unwrap_or_default();
            if self.part == Part::RequestLine && memchr(b'#', piece).is_some() {
                return Err("the request target has a fragment (#)");
            }
            if end.is_some() && self.start.is_empty() {
                self.end_line(piece, piece.last().copied())?;
                continue;
            }
            // A line that came in parts, or has not ended.
            let wanted = self.start.inline_size() - self.start.len();
            self.start.extend_from_slice(piece.get(..wanted).unwrap_or(piece));
            self.last = piece.last().copied().or(self.last);
            if end.is_some() {
                let (start, last) = (std::mem::take(&mut self.start), self.last.take());
                self.end_line(&start, last)?;
            }
        }
        self.behind += rest.len() as u64;
        Ok(())
    }

    /// Whether more came than this request, so that the next one has begun already.
    pub(super) fn ran_ahead(&self) -> bool {
        !self.has_coding && self.behind > self.length
    }

    /// Whether the target is not over yet.
    pub(super) fn is_in_request_line(&self) -> bool {
        self.part == Part::RequestLine
    }

    /// A line is over, which begins with `start` and ends with `last`.
    fn end_line(&mut self, start: &[u8], last: Option<u8>) -> Result<(), &'static str> {
        if last != Some(b'\r') {
            return Err("a line of the head ends without a carriage return");
        }
        let is_empty = start == b"\r";
        // Most lines differ in their first letter.
        let same = |(a, b): (&u8, &u8)| a.eq_ignore_ascii_case(b);
        let named = |name: &[u8]| start.len() >= name.len() && start.iter().zip(name).all(same);
        if named(LENGTH) {
            self.has_length = true;
            let digits = start.get(LENGTH.len()..).and_then(|value| std::str::from_utf8(value).ok());
            self.length = digits.and_then(|digits| digits.trim().parse().ok()).unwrap_or(u64::MAX);
        }
        self.has_coding |= named(CODING);
        if self.has_length && self.has_coding {
            return Err("Content-Length and Transfer-Encoding cannot both be sent");
        }
        self.part = match self.part {
            // Empty lines before a request are ignored (RFC 9112 §2.2).
            Part::RequestLine if is_empty => Part::RequestLine,
            Part::Fields if is_empty => Part::Over,
            Part::RequestLine | Part::Fields | Part::Over => Part::Fields,
        };
        Ok(())
    }
}
