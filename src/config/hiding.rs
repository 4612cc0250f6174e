//! What of a configuration no message shows: all text of which no reader said that it is no secret, and all comments.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problems;

/// Keeps it out of every message. `document` is what was read of `text`.
pub(super) fn hide_unshown(text: &str, document: &DeTable<'_>, problems: &Problems) {
    let mut read = Read::default();
    read.table(document);
    for span in read.values.iter().filter(|span| !problems.is_shown(span.start)) {
        problems.hide(span.clone());
    }
    if !problems.shows_comments() {
        hide_comments(text, read, problems);
    }
}

/// Where text stands that is not TOML's own.
#[derive(Default)]
struct Read {
    keys: Vec<Range<usize>>,
    values: Vec<Range<usize>>,
}

impl Read {
    fn table(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            self.keys.push(key.span());
            self.value(value);
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.table(table),
            DeValue::Array(list) => list.iter().for_each(|value| self.value(value)),
            DeValue::String(_) => self.values.push(value.span()),
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
        }
    }
}

/// A `#` begins a comment where it is part of neither a key nor a value.
fn hide_comments(text: &str, read: Read, problems: &Problems) {
    let mut read = [read.keys, read.values].concat();
    read.sort_unstable_by_key(|span| span.start);
    let (mut next, mut past) = (read.into_iter().peekable(), 0);
    for (at, _) in text.match_indices('#') {
        while let Some(span) = next.next_if(|span| span.start <= at) {
            past = past.max(span.end);
        }
        if at >= past {
            let end = text.get(at..).and_then(|rest| rest.find('\n')).map_or(text.len(), |length| at + length);
            problems.hide(at + 1..end);
            past = end;
        }
    }
}

/// Whether addresses are hosts, ports and databases, and nothing in them can be a password.
pub(super) fn is_plain(urls: &str) -> bool {
    let is_plain = |url: &str| {
        let Some((_, place)) = url.split_once("://") else { return url.is_empty() };
        let authority = place.split('/').next().unwrap_or_default();
        let after_host = authority.rsplit(']').next().unwrap_or_default();
        let port = after_host.split_once(':').map_or("", |(_, port)| port);
        port.bytes().all(|b| b.is_ascii_digit())
            && place.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:/[]".contains(&b))
    };
    urls.split(',').map(str::trim).all(is_plain)
}
