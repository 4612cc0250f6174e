//! Reads one TOML table: each key by its type, every mistake noted where it stands, unknown keys refused.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problems, known_names};
use super::renamed;
use super::secret::may_be_secret;
use crate::tls;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where, as bytes of the text.
    pub span: Range<usize>,
}

impl<T> Located<T> {
    /// The same place with another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Located<U> {
        Located { value: f(self.value), span: self.span }
    }
}

/// What is said where a name is none.
pub const NAMES: &str = "use letters, digits, `-`, `_` and `.`";

/// Whether something in a configuration can be named so.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// One table of a configuration.
#[derive(Debug)]
pub struct Section<'a> {
    /// Its name as errors write it: `listen`, `tiers.premium`.
    pub path: String,
    /// Where it stands.
    pub span: Range<usize>,
    table: &'a DeTable<'a>,
    asked: RefCell<Vec<&'static str>>,
    problems: &'a Problems,
}

impl<'a> Section<'a> {
    /// A table of the document.
    pub fn new(path: impl Into<String>, table: &'a DeTable<'a>, span: Range<usize>, problems: &'a Problems) -> Self {
        Self { path: path.into(), span, table, asked: RefCell::default(), problems }
    }

    /// Notes a mistake.
    pub fn wrong(&self, span: Range<usize>, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.problems.note(span, message, help);
    }

    /// Notes what is probably a mistake.
    pub fn warn(&self, span: Range<usize>, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.problems.warn(span, message, help);
    }

    /// Whether placeholders stand for secrets.
    pub(super) fn has_placeholders(&self) -> bool {
        self.problems.has_placeholders()
    }

    /// Keeps a value out of every message: it is, or may be, a secret.
    pub fn hide(&self, span: Range<usize>) {
        self.problems.hide(span);
    }

    /// Lets messages show a value, which is no secret. Text is shown nowhere else.
    pub fn show(&self, span: &Range<usize>) {
        self.problems.show(span.start);
    }

    fn show_value(&self, key: &str) {
        self.problems.note_plain_key(key);
        if let Some(value) = self.table.get(key) {
            self.show(&value.span());
        }
    }

    /// Returns whether the table has the key. Unlike the readers, this does not count as asking for it.
    pub fn contains(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn get(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().push(key);
        self.table.get(key)
    }

    /// Notes that a key has to be there; where not all could be read, it may be.
    pub fn missing(&self, key: &'static str, help: &str) {
        if self.problems.is_incomplete() {
            return;
        }
        self.wrong(self.span.clone(), format!("`{}` is missing", self.key(key)), help.to_owned());
    }

    fn typed<T>(
        &self,
        key: &'static str,
        wanted: &str,
        read: impl Fn(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<Located<T>> {
        let value = self.get(key)?;
        let Some(read) = read(value.get_ref()) else {
            let found = value.get_ref().type_str();
            self.wrong(value.span(), format!("`{}` has to be {wanted}, not {found}", self.key(key)), None);
            return None;
        };
        Some(Located { value: read, span: value.span() })
    }

    /// What [`Self::typed`] reads, of a key that holds no secret.
    fn shown<T>(
        &self,
        key: &'static str,
        wanted: &str,
        read: impl Fn(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<Located<T>> {
        self.show_value(key);
        self.typed(key, wanted, read)
    }

    /// Text.
    pub fn string(&self, key: &'static str) -> Option<Located<&'a str>> {
        self.problems.note_plain_key(key);
        let text = self.unshown(key)?;
        self.show(&text.span);
        Some(text)
    }

    /// Text that no message shows unless [`Self::show`] is called.
    pub fn unshown(&self, key: &'static str) -> Option<Located<&'a str>> {
        self.typed(key, "a string", DeValue::as_str)
    }

    /// A file of certificate authorities in PEM, which is looked into.
    pub fn ca_file(&self, key: &'static str) -> Option<Located<PathBuf>> {
        let path = self.string(key)?.map(PathBuf::from);
        if let Err(fault) = tls::roots(Some(&path.value)) {
            let help =
                "name a PEM file of the certificate authorities to trust, or leave it out to trust the public ones";
            let file = path.value.display();
            self.wrong(
                path.span.clone(),
                format!("`{}`: `{file}` cannot be used: {fault}", self.key(key)),
                help.to_owned(),
            );
        }
        Some(path)
    }

    /// `true` or `false`.
    pub fn boolean(&self, key: &'static str) -> Option<bool> {
        self.shown(key, "true or false", DeValue::as_bool).map(|located| located.value)
    }

    /// A whole number within bounds.
    pub fn integer(&self, key: &'static str, allowed: RangeInclusive<u32>) -> Option<u32> {
        let parse = |value: &DeValue<'a>| {
            let integer = value.as_integer()?;
            Some(i64::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i64::MAX))
        };
        let wanted = format!("a whole number from {} to {}", allowed.start(), allowed.end());
        let number = self.shown(key, &wanted, parse)?;
        let fits = u32::try_from(number.value).ok().filter(|n| allowed.contains(n));
        if fits.is_none() {
            self.wrong(number.span, format!("`{}` has to be {wanted}", self.key(key)), None);
        }
        fits
    }

    /// A time such as `"250ms"`, `"30s"` or `"1h 30m"`, more than zero.
    pub fn duration(&self, key: &'static str) -> Option<Duration> {
        let text = self.string(key)?;
        let parsed = text.value.parse::<SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
        let parsed = parsed.filter(|d| !d.is_zero() && *d <= Duration::from_secs(7 * 24 * 3600));
        if parsed.is_none() {
            let help = "write it as \"250ms\", \"30s\", \"5m\" or \"1h\"; more than zero, at most a week".to_owned();
            self.wrong(text.span, format!("`{}` is not a time", self.key(key)), help);
        }
        parsed
    }

    /// One of several names.
    pub fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.string(key)?;
        let chosen = choices.iter().find(|(name, _)| *name == text.value).map(|(_, choice)| *choice);
        if chosen.is_none() {
            let help = known_names(text.value, choices.iter().map(|(name, _)| *name));
            self.wrong(text.span, format!("`{}` cannot be `{}`", self.key(key), text.value), help);
        }
        chosen
    }

    /// A list of values, each read by `item`, which is told where it stands.
    pub fn list<T>(
        &self,
        key: &'static str,
        item: impl Fn(&'a DeValue<'a>, Range<usize>) -> Option<T>,
    ) -> Option<Located<Vec<T>>> {
        let array = self.typed(key, "a list", DeValue::as_array)?;
        Some(array.map(|array| array.iter().filter_map(|entry| item(entry.get_ref(), entry.span())).collect()))
    }

    /// A list of strings.
    pub fn strings(&self, key: &'static str) -> Option<Located<Vec<Located<&'a str>>>> {
        self.show_value(key);
        self.list(key, |value, span| {
            self.show(&span);
            let Some(text) = value.as_str() else {
                self.wrong(span, format!("`{}` takes strings, not {}", self.key(key), value.type_str()), None);
                return None;
            };
            Some(Located { value: text, span })
        })
    }

    /// A table inside this one.
    pub fn section(&self, key: &'static str) -> Option<Section<'a>> {
        let table = self.typed(key, "a table", DeValue::as_table)?;
        Some(Section::new(self.key(key), table.value, self.key_span(key).unwrap_or(table.span), self.problems))
    }

    /// A table of a value found in a list.
    #[must_use]
    pub fn inline(&self, key: &str, table: &'a DeTable<'a>, span: Range<usize>) -> Section<'a> {
        Section::new(self.key(key), table, span, self.problems)
    }

    /// A key that holds either text or a table.
    pub fn raw(&self, key: &'static str) -> Option<(&'a DeValue<'a>, Range<usize>)> {
        self.get(key).map(|value| (value.get_ref(), value.span()))
    }

    /// Every table inside this one, whose names the operator chose.
    pub fn named_sections(&self) -> Vec<(Located<&'a str>, Section<'a>)> {
        let entry = |(key, value): (&'a Spanned<toml::de::DeString<'a>>, &'a Spanned<DeValue<'a>>)| {
            let (name, span): (&'a str, _) = (key.get_ref(), key.span());
            if !is_name(name) {
                self.wrong(span.clone(), format!("`{}` cannot be named so", self.key(name)), NAMES.to_owned());
                return None;
            }
            let Some(table) = value.get_ref().as_table() else {
                let found = value.get_ref().type_str();
                self.wrong(value.span(), format!("`{}` has to be a table, not {found}", self.key(name)), None);
                return None;
            };
            let section = Section::new(self.key(name), table, span.clone(), self.problems);
            Some((Located { value: name, span }, section))
        };
        self.table.iter().filter_map(entry).collect()
    }

    fn key_span(&self, key: &str) -> Option<Range<usize>> {
        self.table.get_key_value(key).map(|(key, _)| key.span())
    }

    /// A moment, written as a TOML date-time with an offset.
    pub fn moment(&self, key: &'static str) -> Option<Timestamp> {
        let text = self.shown(key, "a date and time with an offset", |v| v.as_datetime().map(ToString::to_string))?;
        let parsed = text.value.parse::<Timestamp>().ok();
        if parsed.is_none() {
            let help = "write it with its offset, as 2027-01-31T00:00:00Z".to_owned();
            self.wrong(text.span, format!("`{}` is not a moment", self.key(key)), help);
        }
        parsed
    }

    /// Ends the reading: keys that nothing asked for are mistakes.
    pub fn finish(self) {
        let asked = self.asked.into_inner();
        let full = |name: &str| if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        for key in &asked {
            self.problems.note_key(|| full(key));
        }
        for (key, value) in self.table {
            let name: &str = key.get_ref();
            if asked.contains(&name) {
                continue;
            }
            hide_values(value, self.problems);
            if full(name) == renamed::OLD_SECTION {
                renamed::note(key.span(), value.get_ref(), self.problems);
                continue;
            }
            if !is_name(name) || may_be_secret(name) {
                self.problems.hide(key.span());
                self.problems.note(key.span(), format!("unknown key in `{}`", self.path), None);
                continue;
            }
            let help = known_names(name, asked.iter().copied());
            self.problems.note(key.span(), format!("unknown key `{}`", full(name)), help);
        }
    }
}

/// What an unknown key holds tells nobody anything, and may be a secret whose key is misspelled.
fn hide_values(value: &Spanned<DeValue<'_>>, problems: &Problems) {
    match value.get_ref() {
        DeValue::Table(table) => {
            for (key, value) in table {
                if !is_name(key.get_ref()) || may_be_secret(key.get_ref()) {
                    problems.hide(key.span());
                }
                hide_values(value, problems);
            }
        }
        _ => problems.hide(value.span()),
    }
}
