//! The canonical form of a request path: one meaning, here and upstream, or none at all.
//!
//! Cal.com matches paths without regard to case, ignores one trailing slash, decodes parameters after matching, and may
//! have a normalising proxy in front (FACTS §5). A path that could mean one thing here and another there has no
//! canonical form and is refused.

use std::borrow::Cow;

use memchr::{memchr, memchr2_iter};
use smallvec::SmallVec;

use crate::refusal::PathError;

/// The misspelling that Cal.com corrects anywhere in a URL, before routing (FACTS §5).
const REWRITTEN_WORD: &str = "reccuring";

/// A path in canonical form: non-empty segments, unreserved characters unescaped, other escapes in upper case, no
/// trailing slash. Letter case is kept (parameters have it); literals are compared without it.
#[derive(Debug, Clone)]
pub struct CanonicalPath<'a> {
    text: Cow<'a, str>,
    /// Where each segment lies in `text`: a target is never longer than 65,534 bytes (`http::Uri`).
    segments: SmallVec<[(u16, u16); 12]>,
}

impl<'a> CanonicalPath<'a> {
    /// Brings the path of a request target into canonical form.
    ///
    /// # Errors
    /// Why it has none.
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

    /// The segments, in order. The root path has none.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().map(|&(from, to)| self.slice(from, to))
    }

    /// Whether the path is one of `template`, as a document writes it.
    pub fn matches(&self, template: &str) -> bool {
        let mut parts = template.split('/').skip(1);
        let is_next = |given: &str| parts.next().is_some_and(|p| p.starts_with('{') || p.eq_ignore_ascii_case(given));
        self.segments().all(is_next) && parts.next().is_none()
    }

    /// What stands in the place of `parameter` (`{name}`) of a `template` that the path fits.
    pub fn parameter(&self, template: &str, parameter: &str) -> Option<&str> {
        self.segment(template.split('/').skip(1).position(|part| part == parameter)?)
    }

    pub(super) fn segment(&self, index: usize) -> Option<&str> {
        self.segments.get(index).map(|&(from, to)| self.slice(from, to))
    }

    fn slice(&self, from: u16, to: u16) -> &str {
        self.text.get(usize::from(from)..usize::from(to)).unwrap_or_default()
    }

    /// Whether it is what `parse` was given. An escaped path may be that, too; it is not looked at so closely.
    pub(super) fn is_unchanged(&self) -> bool {
        matches!(self.text, Cow::Borrowed(_)) && !self.text.ends_with('/')
    }

    /// The path for a message and a log: cut short, and without segments that may hold a secret or a person's address.
    pub fn redacted(&self) -> String {
        let mut shown = String::new();
        for segment in self.segments() {
            if shown.len() > MAX_SHOWN {
                shown.push_str("/...");
                break;
            }
            shown.push('/');
            shown.push_str(if is_loggable(segment) { segment } else { "(...)" });
        }
        if shown.is_empty() { "/".to_owned() } else { shown }
    }

    /// Writes the whole path.
    pub(super) fn write(&self, out: &mut String) {
        for segment in self.segments() {
            out.push('/');
            out.push_str(segment);
        }
    }

    /// Whether a path outside the catalog may be forwarded at all: under `/v2`, and not by one of the aliases that
    /// upstream rewrites onto known paths (`/api/v2/…`, `/v2/ee/…`, FACTS §5).
    pub(super) fn is_forwardable(&self) -> bool {
        let mut segments = self.segments();
        segments.next() == Some("v2") && segments.next().is_some_and(|second| !second.eq_ignore_ascii_case("ee"))
    }
}

/// Bytes of a path that are shown before it is cut short, and of a segment that is shown at all: no credential is so short.
const MAX_SHOWN: usize = 100;
const MAX_SHOWN_SEGMENT: usize = 32;

/// Whether a segment may be shown: a word or a number, and nothing that begins like a key.
pub(super) fn is_loggable(segment: &str) -> bool {
    let byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    segment.len() <= MAX_SHOWN_SEGMENT
        && segment.bytes().all(byte)
        && !["cal_", "calgate"].iter().any(|start| contains_ignore_case(segment, start))
}

/// Splits at `/`, dropping one trailing slash.
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

/// By byte, whether it can stand in a path: as a character of its own, or for an escape or the end of a segment.
#[expect(clippy::indexing_slicing, reason = "at compile time, where a mistake does not compile")]
const PATH_BYTES: [bool; 256] = {
    let mut all = [false; 256];
    let mut b = 0_u8;
    while b < 128 {
        all[b as usize] = is_path_byte(b) || matches!(b, b'%' | b'/');
        b += 1;
    }
    all
};

/// `pchar` of RFC 3986 without escapes, and without `;`, which some proxies read as the start of path parameters.
const fn is_path_byte(b: u8) -> bool {
    is_unreserved(b) || matches!(b, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@')
}

/// RFC 3986 §2.3.
const fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

/// Decodes escapes of unreserved characters and writes the others in upper case.
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

/// Writes a run of adjacent escapes, which together have to be UTF-8.
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
