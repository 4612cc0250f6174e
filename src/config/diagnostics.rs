//! Mistakes and warnings of a configuration, each shown in its line of the text.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// One mistake in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Place, as a range of bytes of the text.
    pub span: Range<usize>,
    /// Description of the mistake.
    pub message: String,
    /// Allowed values, or the remedy.
    pub help: Option<String>,
}

/// Maximum number of mistakes that are reported, 50. A longer list helps nobody, because each mistake takes several lines.
const MAX_REPORTED: usize = 50;

/// Collector of the mistakes and warnings that reading a configuration finds. Reading continues after a mistake, so that the
/// operator sees all of them.
#[derive(Debug, Default)]
pub struct Diagnostics {
    list: RefCell<Vec<Diagnostic>>,
    /// Number of mistakes beyond [`MAX_REPORTED`].
    unreported: Cell<usize>,
    warnings: RefCell<Vec<Diagnostic>>,
    /// Keys whose values hold no secret. Filled only if `keys` is.
    plain_keys: RefCell<BTreeSet<String>>,
    has_placeholders: bool,
    /// Keys that were looked for, if they are collected.
    keys: Option<RefCell<BTreeSet<String>>>,
    hidden: RefCell<Vec<Range<usize>>>,
    /// Offsets of the values that messages may show. Filled by the second pass only.
    shown: RefCell<HashSet<usize>>,
    is_second_pass: Cell<bool>,
    /// Set if part of the text could not be parsed.
    is_incomplete: Cell<bool>,
    shows_comments: bool,
}

impl Diagnostics {
    /// Creates a collector that also collects the keys that are looked for.
    pub(super) fn with_keys() -> Self {
        Self { keys: Some(RefCell::default()), ..Self::default() }
    }

    /// Creates a collector for a text whose comments hold no secret.
    pub(super) fn with_comments() -> Self {
        Self { shows_comments: true, ..Self::default() }
    }

    /// Creates a collector for a text whose secrets are replaced by placeholders.
    pub(super) fn with_placeholders() -> Self {
        Self { has_placeholders: true, ..Self::default() }
    }

    /// Returns whether placeholders replace the secrets.
    pub(super) fn has_placeholders(&self) -> bool {
        self.has_placeholders
    }

    /// Returns whether messages may show comments.
    pub(super) fn shows_comments(&self) -> bool {
        self.shows_comments
    }

    /// Adds a mistake.
    pub fn error(&self, span: Range<usize>, message: impl Into<String>, help: impl Into<Option<String>>) {
        let mut list = self.list.borrow_mut();
        if list.len() < MAX_REPORTED {
            list.push(Diagnostic { span, message: message.into(), help: help.into() });
        } else {
            self.unreported.set(self.unreported.get() + 1);
        }
    }

    /// Adds a warning: a probable mistake that does not reject the configuration.
    pub fn warn(&self, span: Range<usize>, message: impl Into<String>, help: impl Into<Option<String>>) {
        let mut warnings = self.warnings.borrow_mut();
        if warnings.len() < MAX_REPORTED {
            warnings.push(Diagnostic { span, message: message.into(), help: help.into() });
        }
    }

    /// Returns each warning as `file:line:column: message`.
    pub(super) fn warnings(&self, origin: &str, text: &str) -> Vec<String> {
        let mut warnings = self.warnings.borrow().clone();
        warnings.sort_by_key(|warning| warning.span.start);
        warnings.iter().map(|warning| warning.line(origin, text)).collect()
    }

    /// Hides a part of the text in all messages, because it is or may be a secret.
    pub fn hide(&self, span: Range<usize>) {
        self.hidden.borrow_mut().push(span);
    }

    /// Marks the value at the offset `at` as public: messages may show it.
    pub(super) fn show(&self, at: usize) {
        if self.is_second_pass.get() {
            self.shown.borrow_mut().insert(at);
        }
    }

    /// Discards all findings before a second pass over the same text, which also notes what messages may show.
    pub(super) fn start_second_pass(&self) {
        self.list.borrow_mut().clear();
        self.unreported.set(0);
        self.warnings.borrow_mut().clear();
        self.hidden.borrow_mut().clear();
        self.is_second_pass.set(true);
    }

    /// Returns whether messages may show the value at the offset `at`.
    pub(super) fn is_shown(&self, at: usize) -> bool {
        self.shown.borrow().contains(&at)
    }

    /// Records that part of the text could not be parsed. A missing key may stand there.
    pub(super) fn mark_incomplete(&self) {
        self.is_incomplete.set(true);
    }

    /// Returns whether part of the text could not be parsed.
    pub(super) fn is_incomplete(&self) -> bool {
        self.is_incomplete.get()
    }

    /// Returns the text with `*` in place of each hidden byte, so that all offsets stay the same.
    fn masked(&self, text: &str) -> String {
        let mut hidden = self.hidden.borrow().clone();
        hidden.sort_unstable_by_key(|span| span.start);
        let (mut next, mut until) = (hidden.into_iter().peekable(), 0);
        text.char_indices().fold(String::with_capacity(text.len()), |mut out, (at, c)| {
            while let Some(span) = next.next_if(|span| span.start <= at) {
                until = until.max(span.end);
            }
            let (shown, times) = if c != '\n' && at < until { ('*', c.len_utf8()) } else { (c, 1) };
            out.extend(std::iter::repeat_n(shown, times));
            out
        })
    }

    /// Returns whether there is no mistake.
    pub(super) fn is_empty(&self) -> bool {
        self.list.borrow().is_empty()
    }

    /// Returns all mistakes in the order of the text.
    fn sorted(&self) -> Vec<Diagnostic> {
        let mut list = self.list.borrow().clone();
        list.sort_by_key(|diagnostic| diagnostic.span.start);
        list
    }

    /// Records a key that was looked for.
    pub(super) fn record_key(&self, key: impl FnOnce() -> String) {
        if let Some(keys) = &self.keys {
            keys.borrow_mut().insert(key());
        }
    }

    /// Records that the value of a key holds no secret in any section.
    pub(super) fn record_plain_key(&self, key: &str) {
        if self.keys.is_some() && !self.plain_keys.borrow().contains(key) {
            self.plain_keys.borrow_mut().insert(key.to_owned());
        }
    }

    /// Returns the names of the keys whose values hold no secret.
    pub(super) fn plain_keys(&self) -> BTreeSet<String> {
        self.plain_keys.borrow().clone()
    }

    /// Returns every key that was looked for.
    pub(super) fn into_keys(self) -> BTreeSet<String> {
        self.keys.map(RefCell::into_inner).unwrap_or_default()
    }
}

/// Error for a rejected configuration: its text and all mistakes in it.
#[derive(Debug)]
pub struct ConfigError {
    /// File name, or `(environment)`.
    pub origin: String,
    /// Text with everything masked that may be a secret.
    pub text: String,
    /// Mistakes in the order of the text: at least 1, at most 50.
    pub diagnostics: Vec<Diagnostic>,
    /// Number of further mistakes.
    pub unreported: usize,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let renderer = Renderer::plain();
        for diagnostic in &self.diagnostics {
            writeln!(f, "{}\n", renderer.render(&self.report(diagnostic)))?;
        }
        let count = self.diagnostics.len();
        write!(f, "{}: {count} {}", self.origin, if count == 1 { "problem" } else { "problems" })?;
        if self.unreported > 0 {
            write!(f, ", and {} more that are not shown", self.unreported)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    pub(super) fn new(origin: &str, text: &str, diagnostics: &Diagnostics) -> Self {
        let text = diagnostics.masked(text);
        Self {
            origin: origin.to_owned(),
            text,
            diagnostics: diagnostics.sorted(),
            unreported: diagnostics.unreported.get(),
        }
    }

    fn report<'a>(&'a self, diagnostic: &'a Diagnostic) -> [Group<'a>; 1] {
        let end = diagnostic.span.end.min(self.text.len());
        let span = diagnostic.span.start.min(end)..end;
        let snippet = Snippet::source(&*self.text).path(&*self.origin).annotation(AnnotationKind::Primary.span(span));
        let group = Level::ERROR.primary_title(&*diagnostic.message).element(snippet);
        [match &diagnostic.help {
            Some(help) => group.element(Level::HELP.message(&**help)),
            None => group,
        }]
    }

    /// Returns each mistake as `file:line:column: message` for a log line, then the number of further ones.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<_> =
            self.diagnostics.iter().map(|diagnostic| diagnostic.line(&self.origin, &self.text)).collect();
        if self.unreported > 0 {
            lines.push(format!("{}: {} more problems", self.origin, self.unreported));
        }
        lines
    }
}

impl Diagnostic {
    /// Returns the mistake as `file:line:column: message (help)`.
    fn line(&self, origin: &str, text: &str) -> String {
        let before = text.get(..self.span.start.min(text.len())).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        let help = self.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{origin}:{line}:{column}: {}{help}", self.message)
    }
}

/// Maximum number of known names that a wrong name is compared with, 1,000, because each mistake compares all of them.
const MAX_COMPARED: usize = 1000;

/// Returns the help for an unknown name: the closest known name, if one is close, and the list of known names.
pub fn known_names<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    known.dedup();
    let compared = if known.len() > MAX_COMPARED { &[][..] } else { &known[..] };
    let closest =
        compared.iter().map(|name| (strsim::jaro_winkler(wrong, name), name)).max_by(|a, b| a.0.total_cmp(&b.0));
    let guess = closest.filter(|(likeness, _)| *likeness > 0.8).map(|(_, name)| format!("did you mean `{name}`? "));
    let list = match known.as_slice() {
        [] => "none is known".to_owned(),
        names if names.len() > 40 => format!("{} are known", names.len()),
        names => format!("known: {}", names.join(", ")),
    };
    guess.unwrap_or_default() + &list
}
