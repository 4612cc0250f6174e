//! Checks the documentation against the repository: links, file and type names, module layers, and the names of public types.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::architecture::{Source, sources};

/// Names that two modules still define. The list only becomes shorter.
const HOMONYMS: [&str; 1] = ["Upstream"];

/// One page, with its path in the repository.
struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    fn read(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let text = fs::read_to_string(&path).unwrap();
        Self { path, text }
    }

    /// Returns the lines outside of code blocks.
    fn lines(&self) -> impl Iterator<Item = &str> {
        let mut is_code = false;
        self.text.lines().filter(move |line| {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            !is_code && !is_fence
        })
    }

    /// Returns the targets of links and images.
    fn links(&self) -> impl Iterator<Item = &str> {
        self.lines().flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next())
    }

    /// Returns the texts between backquotes.
    fn code_words(&self) -> impl Iterator<Item = &str> {
        self.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
    }

    /// Returns the anchors of the headings, in the form of GitHub.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.lines().filter(|line| line.starts_with('#'));
        headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
    }
}

fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

/// Returns the pages in one folder.
fn pages_in(folder: &str) -> Vec<Page> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    paths.sort();
    paths.into_iter().map(Page::read).collect()
}

fn pages() -> Vec<Page> {
    [".", "docs", "benches", "benches/compare"].into_iter().flat_map(pages_in).collect()
}

/// Returns the names of the public types of `src`, with the modules that define them.
fn public_types() -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources() {
        for line in source.code().map(str::trim_start) {
            let declared = ["pub struct ", "pub enum ", "pub trait "].iter().find_map(|kind| line.strip_prefix(kind));
            let name = declared.and_then(|rest| rest.split(|c: char| !c.is_alphanumeric()).next());
            if let Some(name) = name {
                found.entry(name.to_owned()).or_default().insert(source.name.clone());
            }
        }
    }
    found
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    for page in pages() {
        for link in page.links().filter(|link| !link.starts_with("http://") && !link.starts_with("https://")) {
            let (file, heading) = link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
            let folder = page.path.parent().unwrap();
            let target = if file.is_empty() { page.path.clone() } else { folder.join(file) };
            assert!(target.exists(), "{}: the file of {link} does not exist", page.path.display());
            if let Some(heading) = heading {
                let anchors = Page::read(&target).anchors();
                assert!(
                    anchors.contains(heading),
                    "{}: the heading of {link} is none of {anchors:?}",
                    page.path.display()
                );
            }
        }
    }
}

#[test]
fn the_index_lists_every_page_and_each_names_its_audience() {
    let index = Page::read("docs/README.md");
    for page in pages_in("docs").iter().filter(|page| page.path != index.path) {
        let name = page.path.file_name().unwrap().to_str().unwrap();
        assert!(index.links().any(|link| link == name), "docs/README.md does not list {name}");
        let begins = page.text.lines().nth(2).unwrap_or_default();
        assert!(page.text.starts_with("# ") && begins.starts_with("For "), "{name} does not name its audience");
    }
}

#[test]
fn files_and_types_that_a_page_names_exist() {
    let types = public_types();
    for page in pages_in("docs") {
        let path = page.path.display();
        for word in page.code_words() {
            let is_file = ["src/", "tests/", "examples/", "config/"].iter().any(|folder| word.starts_with(folder));
            assert!(!is_file || Path::new(word).exists(), "{path} names {word}, which does not exist");
        }
    }
    // The pages also name types of outside crates, which appear in `use` lines.
    let sources = sources();
    let uses: Vec<&str> =
        sources.iter().flat_map(|source| source.code().filter(|line| line.starts_with("use "))).collect();
    for page in ["docs/request-path.md", "docs/architecture.md", "CONTRIBUTING.md"].map(Page::read) {
        let is_type = |word: &&str| {
            word.starts_with(|c: char| c.is_ascii_uppercase())
                && word.contains(|c: char| c.is_ascii_lowercase())
                && word.chars().all(char::is_alphanumeric)
                && !["Host", "Origin", "Dockerfile"].contains(word)
        };
        for word in page.code_words().filter(is_type) {
            let is_imported = |line: &&str| line.split(|c: char| !c.is_alphanumeric()).any(|name| name == word);
            let is_used = types.contains_key(word) || uses.iter().any(is_imported);
            assert!(is_used, "{} names `{word}`, which is neither a public type nor imported", page.path.display());
        }
    }
}

/// All files in a folder and in its folders.
fn files_in(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_in(path.to_str().unwrap()));
        } else {
            found.push(path);
        }
    }
    found
}

/// The names of Rust and Lua files in a text: paths from the root of the repository, or from the folder of the file.
fn named_files(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let words = text.split(move |c| !is_part(c)).map(|word| word.trim_matches(['.', '/']));
    words.filter(|word| word.len() > 4 && [".rs", ".lua"].iter().any(|end| word.ends_with(end)))
}

#[test]
fn files_that_a_comment_names_exist() {
    let files: Vec<PathBuf> =
        ["src", "tests", "examples", "benches", "scripts"].into_iter().flat_map(files_in).collect();
    for path in &files {
        let mark = match path.extension().and_then(|end| end.to_str()) {
            Some("rs") => "//",
            Some("lua") => "--",
            _ if path.starts_with("scripts") => "#",
            _ => continue,
        };
        let text = fs::read_to_string(path).unwrap();
        for comment in text.lines().filter_map(|line| line.split_once(mark)) {
            for name in named_files(comment.1) {
                let exists = Path::new(name).exists() || path.with_file_name(name).exists();
                assert!(exists, "{} names {name}, which does not exist", path.display());
            }
        }
    }
}

#[test]
fn the_request_path_names_every_error_code_and_no_other() {
    let codes = |page: &str| -> BTreeSet<String> {
        let page = Page::read(page);
        page.code_words().filter(|word| word.starts_with("GATEWAY_")).map(str::to_owned).collect()
    };
    assert_eq!(codes("docs/request-path.md"), codes("docs/errors.md"));
}

#[test]
fn the_documented_layers_are_those_of_the_modules() {
    let page = Page::read("docs/architecture.md");
    let rows = page.lines().skip_while(|line| !line.starts_with("| layer |")).skip(2);
    let mut layers: BTreeMap<String, usize> = BTreeMap::new();
    for (layer, row) in rows.take_while(|line| line.starts_with('|')).enumerate() {
        layers.extend(row.split('`').skip(1).step_by(2).map(|module| (module.to_owned(), layer)));
    }
    let sources = sources();
    let is_module = |source: &&Source| !["lib", "main"].contains(&source.module());
    for source in sources.iter().filter(is_module) {
        let own = layers.get(source.module());
        let own = own.unwrap_or_else(|| panic!("docs/architecture.md has no layer for `{}`", source.module()));
        for used in source.uses() {
            let is_above = layers.get(used).is_none_or(|layer| layer <= own);
            assert!(
                is_above,
                "src/{}.rs uses `{used}`, which is in a later layer of docs/architecture.md",
                source.name
            );
        }
    }
    let gone = layers.keys().find(|module| !sources.iter().any(|source| source.module() == *module));
    assert_eq!(gone, None, "docs/architecture.md lists a module that does not exist");
}

#[test]
fn no_two_public_types_have_the_same_name() {
    let homonyms: BTreeMap<_, _> = public_types().into_iter().filter(|(_, modules)| modules.len() > 1).collect();
    for (name, modules) in &homonyms {
        assert!(HOMONYMS.contains(&&**name), "`{name}` is defined in {modules:?}: see docs/glossary.md");
    }
    for name in HOMONYMS {
        assert!(homonyms.contains_key(name), "`{name}` is defined once: remove it from HOMONYMS");
    }
}

#[test]
fn every_word_of_the_glossary_has_one_line() {
    let page = Page::read("docs/glossary.md");
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| word |"));
    let words: Vec<&str> =
        rows.filter_map(|row| row.split('|').nth(1)).flat_map(|cell| cell.split(", ")).map(str::trim).collect();
    let unique: BTreeSet<&str> = words.iter().copied().collect();
    assert_eq!(words.len(), unique.len());
    assert!((40..=64).contains(&words.len()), "{} words", words.len());
}

#[test]
fn the_readme_is_short() {
    let lines = Page::read("README.md").text.lines().count();
    assert!(lines <= 130, "README.md has {lines} lines; move details to docs/");
}
