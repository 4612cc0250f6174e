//! Typed view of one TOML table. Reports every mistake in its place, and every unknown key.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Diagnostics, known_names};
use super::renamed;
use super::secret_source::may_be_secret;
use crate::tls;

/// Value with its place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    /// Value.
    pub value: T,
    /// Place, as a range of bytes of the text.
    pub span: Range<usize>,
}

impl<T> Spanned<T> {
    /// Replaces the value and keeps the place.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Spanned<U> {
        Spanned { value: f(self.value), span: self.span }
    }
}

/// Help text for an invalid name.
pub const NAME_RULE: &str = "use letters, digits, `-`, `_` and `.`";

/// Returns whether `text` is a valid name of a tier, plan, credential or consumer.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Table of a configuration.
#[derive(Debug)]
pub struct Section<'a> {
    /// Name as errors write it: `listen`, `tiers.premium`.
    pub path: String,
    /// Place of the name in the text.
    pub span: Range<usize>,
    table: &'a DeTable<'a>,
    /// Keys that were looked for.
    known_keys: RefCell<Vec<&'static str>>,
    diagnostics: &'a Diagnostics,
}

impl<'a> Section<'a> {
    /// Creates the view of a table.
    pub fn new(
        path: impl Into<String>,
        table: &'a DeTable<'a>,
        span: Range<usize>,
        diagnostics: &'a Diagnostics,
    ) -> Self {
        Self { path: path.into(), span, table, known_keys: RefCell::default(), diagnostics }
    }

    /// Reports a mistake.
    pub fn error(&self, span: Range<usize>, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.diagnostics.error(span, message, help);
    }

    /// Reports a probable mistake.
    pub fn warn(&self, span: Range<usize>, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.diagnostics.warn(span, message, help);
    }

    /// Returns whether placeholders replace the secrets.
    pub(super) fn has_placeholders(&self) -> bool {
        self.diagnostics.has_placeholders()
    }

    /// Hides a value in all messages, because it is or may be a secret.
    pub fn hide(&self, span: Range<usize>) {
        self.diagnostics.hide(span);
    }

    /// Marks a value as public. Messages show no other text values.
    pub fn show(&self, span: &Range<usize>) {
        self.diagnostics.show(span.start);
    }

    fn show_value(&self, key: &str) {
        self.diagnostics.record_plain_key(key);
        if let Some(value) = self.table.get(key) {
            self.show(&value.span());
        }
    }

    /// Returns whether the table has the key, without making it a known one.
    pub fn contains(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn get(&self, key: &'static str) -> Option<&'a toml::Spanned<DeValue<'a>>> {
        self.known_keys.borrow_mut().push(key);
        self.table.get(key)
    }

    /// Reports a missing key, unless part of the text could not be parsed: the key may stand there.
    pub fn missing(&self, key: &'static str, help: &str) {
        if self.diagnostics.is_incomplete() {
            return;
        }
        self.error(self.span.clone(), format!("`{}` is missing", self.key(key)), help.to_owned());
    }

    fn typed<T>(
        &self,
        key: &'static str,
        wanted: &str,
        read: impl Fn(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<Spanned<T>> {
        let value = self.get(key)?;
        let Some(read) = read(value.get_ref()) else {
            let found = value.get_ref().type_str();
            self.error(value.span(), format!("`{}` must be {wanted}, not {found}", self.key(key)), None);
            return None;
        };
        Some(Spanned { value: read, span: value.span() })
    }

    /// Reads the value of a key that holds no secret, like [`Self::typed`].
    fn plain<T>(
        &self,
        key: &'static str,
        wanted: &str,
        read: impl Fn(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<Spanned<T>> {
        self.show_value(key);
        self.typed(key, wanted, read)
    }

    /// Reads a string that holds no secret.
    pub fn string(&self, key: &'static str) -> Option<Spanned<&'a str>> {
        self.diagnostics.record_plain_key(key);
        let text = self.secret_string(key)?;
        self.show(&text.span);
        Some(text)
    }

    /// Reads a string that messages hide unless [`Self::show`] is called.
    pub fn secret_string(&self, key: &'static str) -> Option<Spanned<&'a str>> {
        self.typed(key, "a string", DeValue::as_str)
    }

    /// Reads the path of a PEM file of certificate authorities, and checks the file.
    pub fn ca_file(&self, key: &'static str) -> Option<Spanned<PathBuf>> {
        let path = self.string(key)?.map(PathBuf::from);
        if let Err(fault) = tls::roots(Some(&path.value)) {
            let help =
                "name a PEM file of the certificate authorities to trust, or leave it out to trust the public ones";
            let file = path.value.display();
            self.error(
                path.span.clone(),
                format!("`{}`: `{file}` cannot be used: {fault}", self.key(key)),
                help.to_owned(),
            );
        }
        Some(path)
    }

    /// Reads `true` or `false`.
    pub fn boolean(&self, key: &'static str) -> Option<bool> {
        self.plain(key, "true or false", DeValue::as_bool).map(|located| located.value)
    }

    /// Reads a whole number within bounds.
    pub fn integer(&self, key: &'static str, allowed: RangeInclusive<u32>) -> Option<u32> {
        let parse = |value: &DeValue<'a>| {
            let integer = value.as_integer()?;
            Some(i64::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i64::MAX))
        };
        let wanted = format!("a whole number from {} to {}", allowed.start(), allowed.end());
        let number = self.plain(key, &wanted, parse)?;
        let fits = u32::try_from(number.value).ok().filter(|n| allowed.contains(n));
        if fits.is_none() {
            self.error(number.span, format!("`{}` must be {wanted}", self.key(key)), None);
        }
        fits
    }

    /// Reads a time such as `"250ms"`, `"30s"` or `"1h 30m"`: more than zero, at most a week.
    pub fn duration(&self, key: &'static str) -> Option<Duration> {
        let text = self.string(key)?;
        let parsed = text.value.parse::<SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
        let parsed = parsed.filter(|d| !d.is_zero() && *d <= Duration::from_secs(7 * 24 * 3600));
        if parsed.is_none() {
            let help = "write it as \"250ms\", \"30s\", \"5m\" or \"1h\"; more than zero, at most a week".to_owned();
            self.error(text.span, format!("`{}` is not a time", self.key(key)), help);
        }
        parsed
    }

    /// Reads one of several names.
    pub fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.string(key)?;
        let chosen = choices.iter().find(|(name, _)| *name == text.value).map(|(_, choice)| *choice);
        if chosen.is_none() {
            let help = known_names(text.value, choices.iter().map(|(name, _)| *name));
            self.error(text.span, format!("`{}` cannot be `{}`", self.key(key), text.value), help);
        }
        chosen
    }

    /// Reads a list. `item` reads each value and gets its place.
    pub fn list<T>(
        &self,
        key: &'static str,
        item: impl Fn(&'a DeValue<'a>, Range<usize>) -> Option<T>,
    ) -> Option<Spanned<Vec<T>>> {
        let array = self.typed(key, "a list", DeValue::as_array)?;
        Some(array.map(|array| array.iter().filter_map(|entry| item(entry.get_ref(), entry.span())).collect()))
    }

    /// Reads a list of strings that hold no secret.
    pub fn strings(&self, key: &'static str) -> Option<Spanned<Vec<Spanned<&'a str>>>> {
        self.show_value(key);
        self.list(key, |value, span| {
            self.show(&span);
            let Some(text) = value.as_str() else {
                self.error(span, format!("`{}` must hold strings, not {}", self.key(key), value.type_str()), None);
                return None;
            };
            Some(Spanned { value: text, span })
        })
    }

    /// Reads a table inside this one.
    pub fn section(&self, key: &'static str) -> Option<Section<'a>> {
        let table = self.typed(key, "a table", DeValue::as_table)?;
        Some(Section::new(self.key(key), table.value, self.key_span(key).unwrap_or(table.span), self.diagnostics))
    }

    /// Creates the view of a table that is the value of `key` or stands in its list.
    #[must_use]
    pub fn subsection(&self, key: &str, table: &'a DeTable<'a>, span: Range<usize>) -> Section<'a> {
        Section::new(self.key(key), table, span, self.diagnostics)
    }

    /// Returns the value of a key that has one of several types.
    pub fn raw(&self, key: &'static str) -> Option<(&'a DeValue<'a>, Range<usize>)> {
        self.get(key).map(|value| (value.get_ref(), value.span()))
    }

    /// Reads every table inside this one. The operator chose their names.
    pub fn named_sections(&self) -> Vec<(Spanned<&'a str>, Section<'a>)> {
        let entry = |(key, value): (&'a toml::Spanned<toml::de::DeString<'a>>, &'a toml::Spanned<DeValue<'a>>)| {
            let (name, span): (&'a str, _) = (key.get_ref(), key.span());
            if !is_name(name) {
                self.error(span.clone(), format!("invalid name `{}`", self.key(name)), NAME_RULE.to_owned());
                return None;
            }
            let Some(table) = value.get_ref().as_table() else {
                let found = value.get_ref().type_str();
                self.error(value.span(), format!("`{}` must be a table, not {found}", self.key(name)), None);
                return None;
            };
            let section = Section::new(self.key(name), table, span.clone(), self.diagnostics);
            Some((Spanned { value: name, span }, section))
        };
        self.table.iter().filter_map(entry).collect()
    }

    fn key_span(&self, key: &str) -> Option<Range<usize>> {
        self.table.get_key_value(key).map(|(key, _)| key.span())
    }

    /// Reads a point in time, written as a TOML date-time with an offset.
    pub fn timestamp(&self, key: &'static str) -> Option<Timestamp> {
        let text = self.plain(key, "a date and time with an offset", |v| v.as_datetime().map(ToString::to_string))?;
        let parsed = text.value.parse::<Timestamp>().ok();
        if parsed.is_none() {
            let help = "write it with its offset, as 2027-01-31T00:00:00Z".to_owned();
            self.error(text.span, format!("`{}` is not a date and time with an offset", self.key(key)), help);
        }
        parsed
    }

    /// Reports every key that was not looked for.
    pub fn reject_unknown(self) {
        let known = self.known_keys.into_inner();
        let full = |name: &str| if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        for key in &known {
            self.diagnostics.record_key(|| full(key));
        }
        for (key, value) in self.table {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            hide_values(value, self.diagnostics);
            if full(name) == renamed::OLD_SECTION {
                renamed::report(key.span(), value.get_ref(), self.diagnostics);
                continue;
            }
            if !is_name(name) || may_be_secret(name) {
                self.diagnostics.hide(key.span());
                self.diagnostics.error(key.span(), format!("unknown key in `{}`", self.path), None);
                continue;
            }
            let help = known_names(name, known.iter().copied());
            self.diagnostics.error(key.span(), format!("unknown key `{}`", full(name)), help);
        }
    }
}

/// Hides all that an unknown key holds, because it may be a secret under a misspelled key.
fn hide_values(value: &toml::Spanned<DeValue<'_>>, diagnostics: &Diagnostics) {
    match value.get_ref() {
        DeValue::Table(table) => {
            for (key, value) in table {
                if !is_name(key.get_ref()) || may_be_secret(key.get_ref()) {
                    diagnostics.hide(key.span());
                }
                hide_values(value, diagnostics);
            }
        }
        _ => diagnostics.hide(value.span()),
    }
}
