//! What is wrong with a configuration, and where: every mistake at once, each shown in its line.

use std::cell::RefCell;
use std::collections::BTreeSet;
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

/// What reading a configuration found: its mistakes (reading goes on after each, so that an operator sees them all), and,
/// where that is asked, the keys that were looked for.
#[derive(Debug, Default)]
pub struct Problems {
    list: RefCell<Vec<Problem>>,
    keys: Option<RefCell<BTreeSet<String>>>,
    hidden: RefCell<Vec<Range<usize>>>,
}

impl Problems {
    /// Nothing yet; the keys that are looked for will be kept, too.
    pub(super) fn with_keys() -> Self {
        Self { keys: Some(RefCell::default()), ..Self::default() }
    }

    /// Notes a mistake.
    pub fn note(&self, span: Range<usize>, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.list.borrow_mut().push(Problem { span, message: message.into(), help: help.into() });
    }

    /// Keeps a part of the text out of every message: it is, or may be, a secret.
    pub fn hide(&self, span: Range<usize>) {
        self.hidden.borrow_mut().push(span);
    }

    /// Keeps out of every message what stands where the text is no TOML, and what was read there: it is a guess.
    pub(super) fn give_up(&self, span: Range<usize>) {
        self.list.borrow_mut().retain(|problem| !span.contains(&problem.span.start));
        self.hide(span);
    }

    /// The text without what is hidden; every other character stays in its place.
    pub(super) fn without_hidden(&self, text: &str) -> String {
        let hidden = self.hidden.borrow();
        let is_hidden = |at: usize, c: char| c != '\n' && hidden.iter().any(|span| span.contains(&at));
        text.char_indices().fold(String::with_capacity(text.len()), |mut out, (at, c)| {
            let (shown, times) = if is_hidden(at, c) { ('*', c.len_utf8()) } else { (c, 1) };
            out.extend(std::iter::repeat_n(shown, times));
            out
        })
    }

    /// Whether there is no mistake.
    pub(super) fn is_empty(&self) -> bool {
        self.list.borrow().is_empty()
    }

    /// All mistakes, in the order of the text.
    pub fn into_list(self) -> Vec<Problem> {
        let mut list = self.list.into_inner();
        list.sort_by_key(|problem| problem.span.start);
        list
    }

    /// Notes that a key was looked for.
    pub(super) fn note_key(&self, key: impl FnOnce() -> String) {
        if let Some(keys) = &self.keys {
            keys.borrow_mut().insert(key());
        }
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
    /// At least one.
    pub problems: Vec<Problem>,
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let renderer = Renderer::plain();
        for problem in &self.problems {
            writeln!(f, "{}\n", renderer.render(&self.report(problem)))?;
        }
        let count = self.problems.len();
        write!(f, "{}: {count} {}", self.origin, if count == 1 { "problem" } else { "problems" })
    }
}

impl std::error::Error for Unusable {}

impl Unusable {
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

    /// Each problem as `file:line:column: message`, for a log line.
    pub fn lines(&self) -> Vec<String> {
        let place = |at: usize| {
            let before = self.text.get(..at.min(self.text.len())).unwrap_or_default();
            let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
            (before.matches('\n').count() + 1, column)
        };
        self.problems
            .iter()
            .map(|problem| {
                let (line, column) = place(problem.span.start);
                let help = problem.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
                format!("{}:{line}:{column}: {}{help}", self.origin, problem.message)
            })
            .collect()
    }
}

/// "did you mean", or the names there are.
pub fn known_names<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    known.dedup();
    let closest = known.iter().map(|name| (strsim::jaro_winkler(wrong, name), name)).max_by(|a, b| a.0.total_cmp(&b.0));
    let guess = closest.filter(|(likeness, _)| *likeness > 0.8).map(|(_, name)| format!("did you mean `{name}`? "));
    let list = match known.as_slice() {
        [] => "none is known".to_owned(),
        names if names.len() > 40 => format!("{} are known", names.len()),
        names => format!("known: {}", names.join(", ")),
    };
    guess.unwrap_or_default() + &list
}
