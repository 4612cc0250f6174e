//! Strict validator of HTTP/1.1 request framing, against request smuggling.
//!
//! hyper accepts a bare line feed, removes a fragment from the target, and prefers `Transfer-Encoding` to `Content-Length`. A
//! proxy in front of the gateway may find other requests in the same bytes. The validator reads every byte of a connection,
//! including bodies, so it knows where each head starts and checks all of them (RFC 9112 §6).

use std::mem;

use memchr::{memchr, memchr3};
use smallvec::SmallVec;

use crate::config::limits::Bounds;
use crate::headers::MAX_FIELDS;
use crate::refusal::Refusal;

const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";

/// Bytes that a head may have in addition to the target and the fields, 4 KiB.
const HEAD_SLACK: usize = 4096;

/// Maximum length of a chunk-size line with its extensions, 4 KiB. Signed uploads use less than 100 bytes.
const MAX_CHUNK_LINE: usize = 4096;

/// Validator of one connection's input.
#[derive(Debug)]
pub(super) struct Framing {
    state: FramingState,
    line: Line,
    head: Head,
    has_read_head: bool,
    /// `[limits] target_bytes`.
    target_bytes: usize,
    /// `[limits] head_bytes`.
    head_bytes: usize,
}

/// Maximum digits of a chunk size, 16: a number of 64 bits.
const MAX_SIZE_DIGITS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FramingState {
    /// The request line, or the empty lines before it.
    RequestLine,
    Fields,
    /// A body with `Content-Length`, and its bytes to come.
    Body(u64),
    ChunkSize,
    /// The data of a chunk, and its bytes to come.
    ChunkData(u64),
    /// The line end behind the data of a chunk.
    ChunkEnd,
    Trailers,
}

/// The current line, if it arrives in several reads.
#[derive(Debug, Default)]
struct Line {
    /// The first bytes of the line: enough for a field name and a length.
    start: SmallVec<[u8; 64]>,
    length: usize,
    last: Option<u8>,
}

/// The framing of the head that is being read.
#[derive(Debug, Default)]
struct Head {
    bytes: usize,
    fields: usize,
    length: Option<u64>,
    is_chunked: bool,
}

/// A violated rule.
#[derive(Debug)]
pub(super) struct Violation {
    /// Number of bytes before the line that violates the rule.
    pub(super) valid: usize,
    pub(super) refusal: Refusal,
}

/// Returns the maximum length of a head in bytes: the limits of its parts and [`HEAD_SLACK`].
pub(super) fn max_head(limits: &Bounds) -> usize {
    limits.target_bytes + limits.head_bytes + HEAD_SLACK
}

impl Framing {
    /// Creates the validator of a new connection.
    pub(super) fn new(limits: &Bounds) -> Self {
        Self {
            state: FramingState::RequestLine,
            line: Line::default(),
            head: Head::default(),
            has_read_head: false,
            target_bytes: limits.target_bytes,
            head_bytes: limits.head_bytes,
        }
    }

    /// Returns whether a head has begun and not ended. Empty lines before a request do not begin one (RFC 9112 §2.2).
    pub(super) fn is_in_head(&self) -> bool {
        self.state == FramingState::Fields || self.state == FramingState::RequestLine && self.line.length > 0
    }

    /// Returns whether a head was read to its end.
    pub(super) fn has_read_head(&self) -> bool {
        self.has_read_head
    }

    /// Returns whether the head of a request has ended and its body has not.
    pub(super) fn is_in_body(&self) -> bool {
        !matches!(self.state, FramingState::RequestLine | FramingState::Fields)
    }

    /// Validates `new`, the next bytes of the connection.
    ///
    /// # Errors
    /// The first violated rule.
    pub(super) fn feed(&mut self, new: &[u8]) -> Result<(), Violation> {
        let mut rest = new;
        while !rest.is_empty() {
            let valid = new.len() - rest.len();
            rest = self.step(rest).map_err(|refusal| Violation { valid, refusal })?;
        }
        Ok(())
    }

    /// Validates the rest of a line or of a body. Returns the bytes behind it.
    fn step<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], Refusal> {
        if let FramingState::Body(left) | FramingState::ChunkData(left) = &mut self.state {
            let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= taken as u64;
            self.state = match self.state {
                FramingState::Body(0) => FramingState::RequestLine,
                FramingState::ChunkData(0) => FramingState::ChunkEnd,
                state => state,
            };
            return Ok(bytes.get(taken..).unwrap_or_default());
        }
        let end = memchr(b'\n', bytes);
        let (piece, behind) = bytes.split_at(end.unwrap_or(bytes.len()));
        let length = self.line.length + piece.len();
        self.check_length(length, piece)?;
        match end {
            Some(_) if self.line.length == 0 => self.end_line(piece, piece.len(), piece.last().copied())?,
            _ => {
                self.line.add(piece);
                if end.is_some() {
                    let Line { start, length, last } = mem::take(&mut self.line);
                    self.end_line(&start, length, last)?;
                }
            }
        }
        Ok(behind.get(1..).unwrap_or_default())
    }

    /// Checks the length of a line so far, of which `piece` is new.
    fn check_length(&mut self, length: usize, piece: &[u8]) -> Result<(), Refusal> {
        match self.state {
            FramingState::RequestLine => {
                self.head.bytes += piece.len();
                if self.head.bytes > self.target_bytes + HEAD_SLACK {
                    return Err(Refusal::TargetTooLong { limit: self.target_bytes });
                }
                if memchr3(b'"', b'<', b'>', piece).is_some() {
                    return Err(Refusal::InvalidHeader(
                        "the path or query has a \", < or >, which has to be percent-encoded",
                    ));
                }
                if memchr(b'#', piece).is_some() {
                    return Err(Refusal::InvalidHeader("the request target has a fragment (#)"));
                }
            }
            FramingState::Fields => {
                self.head.bytes += piece.len();
                if self.head.bytes > self.target_bytes + self.head_bytes + HEAD_SLACK {
                    return Err(Refusal::HeadTooLarge { limit: self.head_bytes });
                }
            }
            FramingState::ChunkSize if length > MAX_CHUNK_LINE => return Err(Refusal::BodyBroken),
            _ => {}
        }
        Ok(())
    }

    /// Ends a line of `length` bytes, which begins with `start` and ends with `last`.
    fn end_line(&mut self, start: &[u8], length: usize, last: Option<u8>) -> Result<(), Refusal> {
        if last != Some(b'\r') {
            return Err(if self.is_in_body() {
                Refusal::BodyBroken
            } else {
                Refusal::InvalidHeader("a line of the head ends without a carriage return")
            });
        }
        let is_empty = length == 1;
        let is_whole = start.len() == length;
        let text = if is_whole { start.split_last().map_or(start, |(_, text)| text) } else { start };
        self.state = match self.state {
            FramingState::RequestLine | FramingState::Trailers if is_empty => FramingState::RequestLine,
            FramingState::RequestLine => FramingState::Fields,
            FramingState::Fields if is_empty => self.end_head(),
            FramingState::Fields => {
                self.read_field(text, is_whole)?;
                FramingState::Fields
            }
            // The kept start of a longer line may not contain the whole size.
            FramingState::ChunkSize if !is_whole && memchr(b';', start).is_none() => return Err(Refusal::BodyBroken),
            FramingState::ChunkSize => match chunk_size(text).ok_or(Refusal::BodyBroken)? {
                0 => FramingState::Trailers,
                size => FramingState::ChunkData(size),
            },
            FramingState::ChunkEnd if is_empty => FramingState::ChunkSize,
            FramingState::Trailers => FramingState::Trailers,
            FramingState::ChunkEnd | FramingState::Body(_) | FramingState::ChunkData(_) => {
                return Err(Refusal::BodyBroken);
            }
        };
        Ok(())
    }

    /// Reads a framing field (RFC 9112 §6). A head may have one of the two, with one possible meaning.
    fn read_field(&mut self, field: &[u8], is_whole: bool) -> Result<(), Refusal> {
        let head = &mut self.head;
        head.fields += 1;
        if head.fields > MAX_FIELDS {
            return Err(Refusal::TooManyFields { limit: MAX_FIELDS });
        }
        let value = |name: &[u8]| match field.split_at_checked(name.len()) {
            Some((given, value)) if given.eq_ignore_ascii_case(name) => Some(trimmed(value)),
            _ => None,
        };
        // The first letter rules out most fields.
        match field.first().map(u8::to_ascii_lowercase) {
            Some(b'c') => {
                let Some(value) = value(LENGTH) else { return Ok(()) };
                let length = digits(value).filter(|_| is_whole);
                if length.is_none() || head.length.is_some_and(|before| Some(before) != length) {
                    return Err(Refusal::InvalidHeader("Content-Length is not one number"));
                }
                head.length = length;
            }
            Some(b't') => {
                let Some(value) = value(CODING) else { return Ok(()) };
                if head.is_chunked || !is_whole || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::InvalidHeader("Transfer-Encoding can only be chunked"));
                }
                head.is_chunked = true;
            }
            _ => return Ok(()),
        }
        if head.is_chunked && head.length.is_some() {
            return Err(Refusal::InvalidHeader("Content-Length and Transfer-Encoding cannot both be sent"));
        }
        Ok(())
    }

    /// Ends a head. Returns the state behind it (RFC 9112 §6.3).
    fn end_head(&mut self) -> FramingState {
        self.has_read_head = true;
        match mem::take(&mut self.head) {
            Head { is_chunked: true, .. } => FramingState::ChunkSize,
            Head { length: Some(length @ 1..), .. } => FramingState::Body(length),
            _ => FramingState::RequestLine,
        }
    }
}

impl Line {
    fn add(&mut self, piece: &[u8]) {
        let wanted = self.start.inline_size() - self.start.len();
        self.start.extend_from_slice(piece.get(..wanted).unwrap_or(piece));
        self.length += piece.len();
        self.last = piece.last().copied().or(self.last);
    }
}

/// Removes the optional white space around a value (RFC 9110 §5.6.3).
fn trimmed(value: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

fn digits(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

/// Parses a chunk-size line (RFC 9112 §7.1). Ignores extensions. Returns `None` if anything else follows the size.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (size, rest) = line.split_at(end);
    if size.len() > MAX_SIZE_DIGITS {
        return None;
    }
    let is_extension =
        |rest: &[u8]| rest.first() == Some(&b';') && rest.iter().all(|byte| *byte == b'\t' || *byte >= b' ');
    if !rest.is_empty() && !is_extension(trimmed(rest)) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()
}
