//! Recovery from syntax errors: blanks each statement that is not TOML, so that the mistakes in the rest are found.
//!
//! A secret may stand in any part of such a statement. Messages show a known section or key at the start of its first line, and
//! nothing of its other lines.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::de::DeTable;

use super::Config;
use super::diagnostics::Diagnostics;
use super::renamed;
use super::secret_source::may_be_secret;
use super::section::is_name;

/// Maximum number of statements that are blanked one by one, 20, because each one parses the whole text again. Then the rest of
/// the text is blanked.
const MAX_STATEMENTS: usize = 20;

/// Configuration in which every key is looked for.
const EVERY_SECTION: &str = "[listen]\n[upstream]\n[catalog]\n[entitlements]\n[plans.x]\n[tiers.x]\n[budget]\n\
    [credentials.a]\nkind = \"api-key\"\n[credentials.b]\nkind = \"platform-client\"\n[credentials.c]\nkind = \"oauth\"\n\
    [token_store]\n[limit_store]\n[consumers.x]\n[anonymous]\n[passthrough]\n[limits]\n[log]\n";

/// Reports the syntax errors of `text`. Returns a text of the same length that is valid TOML, with blanks in place of the
/// invalid statements.
pub(super) fn blank_invalid_statements(text: &str, diagnostics: &Diagnostics) -> String {
    let known = KnownKeys::new();
    let mut rest = text.to_owned();
    diagnostics.mark_incomplete();
    for count in 1.. {
        let (_, errors) = DeTable::parse_recoverable(&rest);
        let place = |error: &toml::de::Error| error.span().unwrap_or(0..0);
        let Some(error) = errors.iter().min_by_key(|error| place(error).start) else { break };
        let mut statement = known.statement(&rest, &place(error));
        if count >= MAX_STATEMENTS || rest.get(statement.clone()).is_none_or(|text| text.trim().is_empty()) {
            statement.end = rest.len();
        }
        let shown = rest.get(statement.clone()).and_then(|text| known.beginning(first_line(text))).unwrap_or(0);
        diagnostics.error(place(error), error.message(), None);
        let (after, line_end) = (
            statement.start + shown,
            statement.start + first_line(rest.get(statement.clone()).unwrap_or_default()).len(),
        );
        for hidden in known.secrets_of(&rest, statement.start..line_end.max(after), shown) {
            diagnostics.hide(hidden);
        }
        diagnostics.hide(line_end.max(after)..statement.end);
        let is_last = statement.end == rest.len();
        rest = blank(&rest, &statement);
        if is_last {
            break;
        }
    }
    rest
}

fn first_line(text: &str) -> &str {
    text.split_inclusive('\n').next().unwrap_or_default()
}

fn is_toml(text: &str) -> bool {
    DeTable::parse_recoverable(text).1.is_empty()
}

/// Returns the text with blanks in place of a part of it.
fn blank(text: &str, part: &Range<usize>) -> String {
    text.char_indices().fold(String::with_capacity(text.len()), |mut out, (at, c)| {
        let (left, times) = if c != '\n' && part.contains(&at) { (' ', c.len_utf8()) } else { (c, 1) };
        out.extend(std::iter::repeat_n(left, times));
        out
    })
}

/// Names that may stand at the start of a line of a configuration.
struct KnownKeys {
    sections: BTreeSet<String>,
    keys: BTreeSet<String>,
    /// Keys that hold a secret in no section.
    plain: BTreeSet<String>,
}

impl KnownKeys {
    fn new() -> Self {
        let all = Config::keys_looked_for(EVERY_SECTION);
        let (sections, keys): (Vec<_>, Vec<_>) = all.into_iter().partition(|key| !key.contains('.'));
        let last = |key: String| key.rsplit('.').next().map(str::to_owned);
        Self {
            sections: sections.into_iter().chain([renamed::OLD_SECTION.to_owned()]).collect(),
            keys: keys.into_iter().filter_map(last).chain(renamed::old_keys().map(str::to_owned)).collect(),
            // `file` is a source of secrets as well, and a secret itself may stand there by mistake.
            plain: Config::plain_keys(EVERY_SECTION).into_iter().filter(|key| key != "file").collect(),
        }
    }

    /// Returns the parts of an invalid line that may be a secret. Its first `shown` bytes are a section or `key =`, which is public.
    /// After a key that holds no secret, only words that look like a secret are returned, up to the next `=` or `#`: another key or
    /// a comment may start there.
    fn secrets_of(&self, text: &str, line: Range<usize>, shown: usize) -> Vec<Range<usize>> {
        let (start, all) = (line.start + shown, line.start + shown..line.end);
        let beginning = text.get(line.start..start).unwrap_or_default();
        let key = beginning.trim().trim_end_matches('=').trim_end().rsplit('.').next().unwrap_or_default();
        let rest = text.get(all.clone()).unwrap_or_default();
        if !beginning.ends_with('=') || !self.plain.contains(key) {
            return std::iter::once(all).collect();
        }
        let plain_end = rest.find(['=', '#']).unwrap_or(rest.len());
        let is_word = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\'' | ',' | '[' | ']' | '{' | '}');
        let mut hidden = Vec::new();
        let mut at = start;
        for piece in rest.get(..plain_end).unwrap_or_default().split_inclusive(|c| !is_word(c)) {
            let word = piece.trim_end_matches(|c| !is_word(c));
            if may_be_secret(word) || word.contains(['@', '%']) || !word.is_ascii() {
                hidden.push(at..at + word.len());
            }
            at += piece.len();
        }
        hidden.push(start + plain_end..line.end);
        hidden
    }

    /// Returns the lines of the statement with the first syntax error of `text`, up to the next known statement. The text before the
    /// returned range is valid.
    fn statement(&self, text: &str, fault: &Range<usize>) -> Range<usize> {
        let place = |at: &mut usize, line: &'_ str| {
            *at += line.len();
            Some(*at - line.len())
        };
        let starts: Vec<usize> = text.split_inclusive('\n').scan(0, place).collect();
        let line = |at: usize| text.get(at..).map_or("", first_line);
        let of_fault = starts.iter().rfind(|at| **at <= fault.start).copied().unwrap_or(0);
        let upwards = starts.iter().rev().copied().filter(|at| *at <= of_fault);
        let start = upwards
            .filter(|at| *at == of_fault || self.beginning(line(*at)).is_some())
            .take(MAX_STATEMENTS)
            .find(|at| text.get(..*at).is_some_and(is_toml))
            .unwrap_or(0);
        // Without its head, the rest of a section would be read as part of the section before it.
        let is_head = line(start).trim_start().starts_with('[');
        // If the error is at a key or a section, a statement above it was left open.
        let ends = |at: &usize| {
            *at > start
                && (*at == of_fault || *at >= fault.end.max(of_fault + 1))
                && self.beginning(line(*at)).is_some()
                && (!is_head || line(*at).trim_start().starts_with('['))
        };
        start..starts.into_iter().find(ends).unwrap_or(text.len())
    }

    /// Returns the length of `[section]` or `key =` at the start of a line if the name is known. Any other text may be base64.
    fn beginning(&self, line: &str) -> Option<usize> {
        let first = |name: &str| name.split('.').next().is_some_and(|first| self.sections.contains(first));
        if let Some(name) = line.trim().strip_prefix('[') {
            let name = name.strip_suffix(']').unwrap_or(name);
            return (is_name(name) && first(name) && !may_be_secret(name)).then_some(line.len());
        }
        let (key, _) = line.split_once('=')?;
        let name = key.trim();
        let last = name.rsplit('.').next().unwrap_or_default();
        let known = is_name(name) && self.keys.contains(last) && (!name.contains('.') || first(name));
        known.then_some(key.len() + 1)
    }
}
