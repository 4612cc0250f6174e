//! What is wrong with a configuration, and where: every mistake at once, each shown in its line.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// One mistake in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, as bytes of the text.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What is allowed, or what to do.
    pub help: Option<String>,
}

/// Maximum number of mistakes that are reported, 50: more help nobody, and each shows its line.
const MAX_REPORTED: usize = 50;

/// What reading a configuration found: its mistakes (reading goes on after each, so that an operator sees them all), and,
/// where that is asked, the keys that were looked for.
#[derive(Debug, Default)]
pub struct Problems {
    list: RefCell<Vec<Problem>>,
    /// Mistakes beyond [`MAX_REPORTED`].
    unreported: Cell<usize>,
    warnings: RefCell<Vec<Problem>>,
    /// Keys whose values no reader takes for a secret, where keys are asked for.
    plain_keys: RefCell<BTreeSet<String>>,
    has_placeholders: bool,
    keys: Option<RefCell<BTreeSet<String>>>,
    hidden: RefCell<Vec<Range<usize>>>,
    /// Where text begins that messages may show; noted by the second reading only.
    shown: RefCell<HashSet<usize>>,
    is_second: Cell<bool>,
    incomplete: Cell<bool>,
    shows_comments: bool,
}

impl Problems {
    /// Nothing yet; the keys that are looked for will be kept, too.
    pub(super) fn with_keys() -> Self {
        Self { keys: Some(RefCell::default()), ..Self::default() }
    }

    /// Nothing yet; comments of the text are no secrets.
    pub(super) fn with_comments() -> Self {
        Self { shows_comments: true, ..Self::default() }
    }

    /// Nothing yet; secrets are not read, and placeholders stand for them.
    pub(super) fn with_placeholders() -> Self {
        Self { has_placeholders: true, ..Self::default() }
    }

    /// Whether placeholders stand for secrets.
    pub(super) fn has_placeholders(&self) -> bool {
        self.has_placeholders
    }

    /// Whether messages may show comments.
    pub(super) fn shows_comments(&self) -> bool {
        self.shows_comments
    }

    /// Notes a mistake.
    pub fn note(&self, span: Range<usize>, message: impl Into<String>, help: impl Into<Option<String>>) {
        let mut list = self.list.borrow_mut();
        if list.len() < MAX_REPORTED {
            list.push(Problem { span, message: message.into(), help: help.into() });
        } else {
            self.unreported.set(self.unreported.get() + 1);
        }
    }

    /// Notes what is probably a mistake, and does not keep the configuration from being used.
    pub fn warn(&self, span: Range<usize>, message: impl Into<String>, help: impl Into<Option<String>>) {
        let mut warnings = self.warnings.borrow_mut();
        if warnings.len() < MAX_REPORTED {
            warnings.push(Problem { span, message: message.into(), help: help.into() });
        }
    }

    /// Each warning as `file:line:column: message`.
    pub(super) fn warnings(&self, origin: &str, text: &str) -> Vec<String> {
        let mut warnings = self.warnings.borrow().clone();
        warnings.sort_by_key(|warning| warning.span.start);
        warnings.iter().map(|warning| warning.line(origin, text)).collect()
    }

    /// Keeps a part of the text out of every message: it is, or may be, a secret.
    pub fn hide(&self, span: Range<usize>) {
        self.hidden.borrow_mut().push(span);
    }

    /// Lets messages show the text that begins at `at`: whoever read it knows that it is no secret.
    pub(super) fn show(&self, at: usize) {
        if self.is_second.get() {
            self.shown.borrow_mut().insert(at);
        }
    }

    /// Forgets what was found: the same text is read a second time, for messages about it.
    pub(super) fn begin_again(&self) {
        self.list.borrow_mut().clear();
        self.unreported.set(0);
        self.warnings.borrow_mut().clear();
        self.hidden.borrow_mut().clear();
        self.is_second.set(true);
    }

    /// Whether messages may show it.
    pub(super) fn is_shown(&self, at: usize) -> bool {
        self.shown.borrow().contains(&at)
    }

    /// Says that part of the text could not be read: what is missing may stand there.
    pub(super) fn mark_incomplete(&self) {
        self.incomplete.set(true);
    }

    /// Whether part of the text could not be read.
    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete.get()
    }

    /// The text without what is hidden; every other character stays in its place.
    pub(super) fn without_hidden(&self, text: &str) -> String {
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

    /// Whether there is no mistake.
    pub(super) fn is_empty(&self) -> bool {
        self.list.borrow().is_empty()
    }

    /// All mistakes, in the order of the text.
    fn sorted(&self) -> Vec<Problem> {
        let mut list = self.list.borrow().clone();
        list.sort_by_key(|problem| problem.span.start);
        list
    }

    /// Notes that a key was looked for.
    pub(super) fn note_key(&self, key: impl FnOnce() -> String) {
        if let Some(keys) = &self.keys {
            keys.borrow_mut().insert(key());
        }
    }

    /// Notes that a key's value is no secret, wherever the key stands.
    pub(super) fn note_plain_key(&self, key: &str) {
        if self.keys.is_some() && !self.plain_keys.borrow().contains(key) {
            self.plain_keys.borrow_mut().insert(key.to_owned());
        }
    }

    /// Names of the keys whose values are no secrets.
    pub(super) fn plain_keys(&self) -> BTreeSet<String> {
        self.plain_keys.borrow().clone()
    }

    /// Every key that was looked for.
    pub(super) fn into_keys(self) -> BTreeSet<String> {
        self.keys.map(RefCell::into_inner).unwrap_or_default()
    }
}

/// A configuration that cannot be used: its text and all that is wrong with it.
#[derive(Debug)]
pub struct Unusable {
    /// The file's name, or what stands for it.
    pub origin: String,
    /// The text, without what may be a secret.
    pub text: String,
    /// At least one; the first 50 that were found.
    pub problems: Vec<Problem>,
    /// How many more were found.
    pub unreported: usize,
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let renderer = Renderer::plain();
        for problem in &self.problems {
            writeln!(f, "{}\n", renderer.render(&self.report(problem)))?;
        }
        let count = self.problems.len();
        write!(f, "{}: {count} {}", self.origin, if count == 1 { "problem" } else { "problems" })?;
        if self.unreported > 0 {
            write!(f, ", and {} more that are not shown", self.unreported)?;
        }
        Ok(())
    }
}

impl std::error::Error for Unusable {}

impl Unusable {
    pub(super) fn new(origin: &str, text: &str, problems: &Problems) -> Self {
        let text = problems.without_hidden(text);
        Self { origin: origin.to_owned(), text, problems: problems.sorted(), unreported: problems.unreported.get() }
    }

    fn report<'a>(&'a self, problem: &'a Problem) -> [Group<'a>; 1] {
        let end = problem.span.end.min(self.text.len());
        let span = problem.span.start.min(end)..end;
        let snippet = Snippet::source(&*self.text).path(&*self.origin).annotation(AnnotationKind::Primary.span(span));
        let group = Level::ERROR.primary_title(&*problem.message).element(snippet);
        [match &problem.help {
            Some(help) => group.element(Level::HELP.message(&**help)),
            None => group,
        }]
    }

    /// Each problem as `file:line:column: message`, for a log line, and how many more there are.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.problems.iter().map(|problem| problem.line(&self.origin, &self.text)).collect();
        if self.unreported > 0 {
            lines.push(format!("{}: {} more problems", self.origin, self.unreported));
        }
        lines
    }
}

impl Problem {
    /// It as `file:line:column: message (help)`.
    fn line(&self, origin: &str, text: &str) -> String {
        let before = text.get(..self.span.start.min(text.len())).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        let help = self.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{origin}:{line}:{column}: {}{help}", self.message)
    }
}

/// Number of names beyond which none is guessed, 1,000: each mistake compares all of them.
const MAX_COMPARED: usize = 1000;

/// "did you mean", or the names there are.
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
