//! Canonical form of request paths, which has the same meaning for calgate and for Cal.com.
//!
//! Cal.com matches paths case-insensitively, ignores one trailing slash and decodes parameters after matching. A proxy in front
//! of it may normalise paths (FACTS §5). calgate refuses a path that the two could interpret differently.

use std::borrow::Cow;

use memchr::{memchr, memchr2_iter};
use smallvec::SmallVec;

use crate::refusal::PathError;

/// Misspelling that Cal.com corrects anywhere in a URL before routing (FACTS §5).
const REWRITTEN_WORD: &str = "reccuring";

/// Path in canonical form.
///
/// It has no empty segment and no trailing slash. Unreserved characters are not escaped, and other escapes are in upper case.
/// Letter case is kept, because it matters in parameters. Literals are compared case-insensitively.
#[derive(Debug, Clone)]
pub struct CanonicalPath<'a> {
    text: Cow<'a, str>,
    /// Start and end of each segment in `text`. `u16` is enough, because `http::Uri` limits a target to 65,534 bytes.
    segments: SmallVec<[(u16, u16); 12]>,
}

impl<'a> CanonicalPath<'a> {
    /// Converts the path of a request target into canonical form.
    ///
    /// # Errors
    /// The reason why the path has no canonical form.
    pub fn parse(raw: &'a str) -> Result<Self, PathError> {
        if !raw.starts_with('/') {
            return Err(PathError::NotOriginForm);
        }
        let is_escaped = memchr(b'%', raw.as_bytes()).is_some();
        let text = if is_escaped { Cow::Owned(unescape(raw)?) } else { Cow::Borrowed(raw) };
        if !text.bytes().all(|b| PATH_BYTES.get(usize::from(b)) == Some(&true)) {
            return Err(PathError::InvalidByte);
        }
        let segments = split(&text)?;
        if contains_ignore_case(&text, REWRITTEN_WORD) {
            return Err(PathError::Rewritten);
        }
        Ok(Self { text, segments })
    }

    /// Returns the segments in order. The root path has none.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().map(|&(from, to)| self.slice(from, to))
    }

    /// Returns whether the path matches the text of a template.
    pub fn matches(&self, template: &str) -> bool {
        let mut parts = template.split('/').skip(1);
        let is_next = |given: &str| parts.next().is_some_and(|p| p.starts_with('{') || p.eq_ignore_ascii_case(given));
        self.segments().all(is_next) && parts.next().is_none()
    }

    /// Returns the value of `parameter` (`{name}`) in a `template` that the path matches.
    pub fn parameter(&self, template: &str, parameter: &str) -> Option<&str> {
        self.segment(template.split('/').skip(1).position(|part| part == parameter)?)
    }

    pub(super) fn segment(&self, index: usize) -> Option<&str> {
        self.segments.get(index).map(|&(from, to)| self.slice(from, to))
    }

    fn slice(&self, from: u16, to: u16) -> &str {
        self.text.get(usize::from(from)..usize::from(to)).unwrap_or_default()
    }

    /// Returns whether the path is known to equal the input of `parse`. Returns `false` for every escaped path, without a
    /// comparison.
    pub(super) fn is_unchanged(&self) -> bool {
        matches!(self.text, Cow::Borrowed(_)) && !self.text.ends_with('/')
    }

    /// Returns the path for messages and logs, truncated, and without segments that may be a secret or an email address.
    pub fn redacted(&self) -> String {
        let mut text = String::new();
        for segment in self.segments() {
            if text.len() > MAX_LOGGED {
                text.push_str("/...");
                break;
            }
            text.push('/');
            text.push_str(if is_loggable(segment) { segment } else { "(...)" });
        }
        if text.is_empty() { "/".to_owned() } else { text }
    }

    /// Writes the whole path.
    pub(super) fn write(&self, out: &mut String) {
        for segment in self.segments() {
            out.push('/');
            out.push_str(segment);
        }
    }

    /// Returns whether calgate may forward the path if the catalog lacks it. It must be under `/v2`, and must not use an alias
    /// that Cal.com rewrites to a known path (`/api/v2/…`, `/v2/ee/…`, FACTS §5).
    pub(super) fn is_forwardable(&self) -> bool {
        let mut segments = self.segments();
        segments.next() == Some("v2") && segments.next().is_some_and(|second| !second.eq_ignore_ascii_case("ee"))
    }
}

/// Length after which a logged path is truncated, 100 bytes.
const MAX_LOGGED: usize = 100;

/// Longest segment that is logged, 32 bytes. Credentials are longer.
const MAX_LOGGED_SEGMENT: usize = 32;

/// Returns whether a segment is safe to log: a word or a number that does not contain the start of a key.
pub(super) fn is_loggable(segment: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    segment.len() <= MAX_LOGGED_SEGMENT
        && segment.bytes().all(is_plain)
        && !["cal_", "calgate"].iter().any(|start| contains_ignore_case(segment, start))
}

/// Splits the path at `/` and drops one trailing slash.
fn split(text: &str) -> Result<SmallVec<[(u16, u16); 12]>, PathError> {
    let mut segments = SmallVec::new();
    let body = text.strip_suffix('/').unwrap_or(text);
    if body.is_empty() {
        return Ok(segments);
    }
    let mut from = 1;
    while let Some(rest) = body.get(from..) {
        let to = from + rest.bytes().position(|byte| byte == b'/').unwrap_or(rest.len());
        match body.get(from..to).unwrap_or_default() {
            "" => return Err(PathError::EmptySegment),
            "." | ".." => return Err(PathError::DotSegment),
            _ => {}
        }
        let offset = |at: usize| u16::try_from(at).map_err(|_| PathError::InvalidByte);
        segments.push((offset(from)?, offset(to)?));
        from = to + 1;
    }
    Ok(segments)
}

/// Whether each byte may occur in a path, including the `%` of escapes and the `/` between segments.
#[expect(clippy::indexing_slicing, reason = "evaluated at compile time, where a wrong index is an error")]
const PATH_BYTES: [bool; 256] = {
    let mut all = [false; 256];
    let mut b = 0_u8;
    while b < 128 {
        all[b as usize] = is_path_byte(b) || matches!(b, b'%' | b'/');
        b += 1;
    }
    all
};

/// Returns whether the byte is a `pchar` (RFC 3986 §3.3) other than `%` and `;`. Some proxies read `;` as the start of path
/// parameters.
const fn is_path_byte(b: u8) -> bool {
    is_unreserved(b) || matches!(b, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@')
}

/// Returns whether the byte is unreserved (RFC 3986 §2.3).
const fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

/// Decodes the escapes of unreserved characters and writes all others in upper case.
fn unescape(raw: &str) -> Result<String, PathError> {
    let mut out = String::with_capacity(raw.len());
    let mut run: Vec<u8> = Vec::new();
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            flush_escapes(&mut run, &mut out)?;
            out.push(if byte.is_ascii() { char::from(byte) } else { return Err(PathError::InvalidByte) });
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(PathError::BrokenEscape) };
        run.push(high << 4 | low);
    }
    flush_escapes(&mut run, &mut out)?;
    Ok(out)
}

/// Writes a run of adjacent escapes, which together must be UTF-8.
fn flush_escapes(run: &mut Vec<u8>, out: &mut String) -> Result<(), PathError> {
    let text = std::str::from_utf8(run).map_err(|_| PathError::NotUtf8)?;
    if text.chars().any(|c| c.is_control() || matches!(c, '/' | '\\' | '%' | '?' | '#' | ';')) {
        return Err(PathError::AmbiguousEscape);
    }
    for &byte in run.iter() {
        if is_unreserved(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for nibble in [byte >> 4, byte & 0xF] {
                out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0').to_ascii_uppercase());
            }
        }
    }
    run.clear();
    Ok(())
}

fn contains_ignore_case(text: &str, word: &str) -> bool {
    let (text, word) = (text.as_bytes(), word.as_bytes());
    let first = word.first().copied().unwrap_or_default();
    let mut starts = memchr2_iter(first.to_ascii_lowercase(), first.to_ascii_uppercase(), text);
    starts.any(|at| text.get(at..at + word.len()).is_some_and(|part| part.eq_ignore_ascii_case(word)))
}
