//! Text that is no TOML: each statement that cannot be understood is put aside, so that the mistakes in the rest are found.
//!
//! What such a statement means is a guess, and a secret may stand in any part of it. So of its first line, messages show a
//! section or key that is known, and of its other lines nothing.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::de::DeTable;

use super::Config;
use super::problem::Problems;
use super::reader::is_name;
use super::renamed;
use super::secret::may_be_secret;

/// After so many, the rest of the text is put aside as one: each takes a reading of all of it.
const MOST: usize = 20;

/// A text in which every key has its place.
const EVERY_SECTION: &str = "[listen]\n[upstream]\n[catalog]\n[entitlements]\n[plans.x]\n[tiers.x]\n[budget]\n\
    [credentials.a]\nkind = \"api-key\"\n[credentials.b]\nkind = \"platform-client\"\n[credentials.c]\nkind = \"oauth\"\n\
    [token_store]\n[limit_store]\n[consumers.x]\n[anonymous]\n[passthrough]\n[limits]\n[log]\n";

/// Notes what of `text` is no TOML. What is left of it is, and every character of that is in its place.
pub(super) fn put_aside(text: &str, problems: &Problems) -> String {
    let known = Known::new();
    let mut rest = text.to_owned();
    problems.mark_incomplete();
    for count in 1.. {
        let (_, faults) = DeTable::parse_recoverable(&rest);
        let place = |fault: &toml::de::Error| fault.span().unwrap_or(0..0);
        let Some(fault) = faults.iter().min_by_key(|fault| place(fault).start) else { break };
        let mut statement = known.statement(&rest, &place(fault));
        if count >= MOST || rest.get(statement.clone()).is_none_or(|text| text.trim().is_empty()) {
            statement.end = rest.len();
        }
        let shown = rest.get(statement.clone()).and_then(|text| known.beginning(first_line(text))).unwrap_or(0);
        problems.note(place(fault), fault.message(), None);
        let (after, line_end) = (
            statement.start + shown,
            statement.start + first_line(rest.get(statement.clone()).unwrap_or_default()).len(),
        );
        for hidden in known.secrets_of(&rest, statement.start..line_end.max(after), shown) {
            problems.hide(hidden);
        }
        problems.hide(line_end.max(after)..statement.end);
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

/// The text with blanks in the place of a part of it.
fn blank(text: &str, part: &Range<usize>) -> String {
    text.char_indices().fold(String::with_capacity(text.len()), |mut out, (at, c)| {
        let (left, times) = if c != '\n' && part.contains(&at) { (' ', c.len_utf8()) } else { (c, 1) };
        out.extend(std::iter::repeat_n(left, times));
        out
    })
}

/// The names that a configuration can have at the beginning of a line.
struct Known {
    sections: BTreeSet<String>,
    keys: BTreeSet<String>,
    /// Those of the keys that hold no secret, whichever section they stand in.
    plain: BTreeSet<String>,
}

impl Known {
    fn new() -> Self {
        let asked = Config::keys_looked_for(EVERY_SECTION);
        let (sections, keys): (Vec<_>, Vec<_>) = asked.into_iter().partition(|key| !key.contains('.'));
        let last = |key: String| key.rsplit('.').next().map(str::to_owned);
        Self {
            sections: sections.into_iter().chain([renamed::OLD_SECTION.to_owned()]).collect(),
            keys: keys.into_iter().filter_map(last).chain(renamed::old_keys().map(str::to_owned)).collect(),
            // `file` is also where a secret comes from, and a secret itself may stand there.
            plain: Config::plain_keys(EVERY_SECTION).into_iter().filter(|key| key != "file").collect(),
        }
    }

    /// The parts of a broken line that may be a secret. `shown` bytes of it are a section or `key =`, which is none. Behind a key
    /// that holds no secret, each word is judged by its looks, up to where another key or a comment may begin.
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

    /// The lines of the statement that the first fault of `text` is in, to where the next one begins that is known. Nothing is
    /// wrong with what stands before it.
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
            .take(MOST)
            .find(|at| text.get(..*at).is_some_and(is_toml))
            .unwrap_or(0);
        // Without its head, what follows would be read as part of another section.
        let is_head = line(start).trim_start().starts_with('[');
        // Where a key or a section is the fault, something above was left open.
        let ends = |at: &usize| {
            *at > start
                && (*at == of_fault || *at >= fault.end.max(of_fault + 1))
                && self.beginning(line(*at)).is_some()
                && (!is_head || line(*at).trim_start().starts_with('['))
        };
        start..starts.into_iter().find(ends).unwrap_or(text.len())
    }

    /// How much of a line is `[section]` or `key =`, if it begins so with a name that is known. Any other may be base64.
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
