//! Redacts configuration text in messages: every value that no reader marked as public, and all comments.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::Diagnostics;

/// Hides all values that are not marked as public, and all comments. `document` is the parsed `text`.
pub(super) fn redact(text: &str, document: &DeTable<'_>, diagnostics: &Diagnostics) {
    let mut visitor = Visitor::default();
    visitor.table(document);
    for span in visitor.values.iter().filter(|span| !diagnostics.is_shown(span.start)) {
        diagnostics.hide(span.clone());
    }
    if !diagnostics.shows_comments() {
        hide_comments(text, visitor, diagnostics);
    }
}

/// Collects the places of all keys and of all text values in a document.
#[derive(Default)]
struct Visitor {
    keys: Vec<Range<usize>>,
    values: Vec<Range<usize>>,
}

impl Visitor {
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

/// Hides all comments. A `#` starts a comment unless it is part of a key or a value.
fn hide_comments(text: &str, visitor: Visitor, diagnostics: &Diagnostics) {
    let mut spans = [visitor.keys, visitor.values].concat();
    spans.sort_unstable_by_key(|span| span.start);
    let (mut next, mut past) = (spans.into_iter().peekable(), 0);
    for (at, _) in text.match_indices('#') {
        while let Some(span) = next.next_if(|span| span.start <= at) {
            past = past.max(span.end);
        }
        if at >= past {
            let end = text.get(at..).and_then(|rest| rest.find('\n')).map_or(text.len(), |length| at + length);
            diagnostics.hide(at + 1..end);
            past = end;
        }
    }
}

/// Returns whether all URLs consist of scheme, host, port and database, so that no part of them can be a password.
pub(super) fn has_no_password(urls: &str) -> bool {
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
