//! The checks in `scripts/`, and the files that CONTRIBUTING.md and SECURITY.md name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A git repository with copies of some scripts.
struct Repository(tempfile::TempDir);

impl Repository {
    fn with(scripts: &[&str]) -> Self {
        let repository = Self(tempfile::tempdir().unwrap());
        fs::create_dir(repository.path().join("scripts")).unwrap();
        for script in scripts {
            fs::copy(Path::new("scripts").join(script), repository.path().join("scripts").join(script)).unwrap();
        }
        repository.git(&["init", "--quiet", "--initial-branch", "main"]);
        repository.git(&["add", "."]);
        repository.commit("This commit is older than the check and is not checked");
        repository
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    fn git(&self, arguments: &[&str]) {
        let name = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgSign=false"];
        let mut command = Command::new("git");
        let done = command.args(name).args(arguments).current_dir(self.path()).env("GIT_CONFIG_GLOBAL", "/dev/null");
        assert!(done.status().unwrap().success(), "git {arguments:?}");
    }

    fn commit(&self, subject: &str) {
        self.git(&["commit", "--quiet", "--allow-empty", "--message", subject]);
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path().join(file), text).unwrap();
    }

    fn run(&self, script: &str, arguments: &[&str]) -> Output {
        Command::new(self.path().join("scripts").join(script))
            .args(arguments)
            .current_dir(self.path())
            .output()
            .unwrap()
    }
}

fn is_accepted(output: &Output) -> bool {
    output.status.success()
}

fn output_of(output: &Output) -> String {
    [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat()
}

#[test]
fn check_commits_requires_a_scope_and_an_imperative() {
    for (subject, fault) in [
        ("limit: seed new buckets from the overflow bucket", None),
        ("budget/queue: pass the express lane first", None),
        ("tests: bring the sleeps down to zero", None),
        ("Limit: seed new buckets", Some("not of the form")),
        ("seed new buckets", Some("not of the form")),
        ("limit: Seed new buckets", Some("not of the form")),
        ("limit: seed new buckets.", Some("not of the form")),
        ("limit: seeds new buckets", Some("not an imperative")),
        ("limit: seeded new buckets", Some("not an imperative")),
        ("limit: seeding new buckets", Some("not an imperative")),
        ("limit: seed new buckets; docs: say so", Some("two commits")),
        ("limit: seed new buckets from the overflow bucket, as it is now", Some("the limit is 60")),
    ] {
        let repository = Repository::with(&["check-commits"]);
        assert!(is_accepted(&repository.run("check-commits", &[])), "earlier commits are not checked");
        repository.commit(subject);
        let output = repository.run("check-commits", &[]);
        assert_eq!(is_accepted(&output), fault.is_none(), "{subject}: {}", output_of(&output));
        assert!(fault.is_none_or(|fault| output_of(&output).contains(fault)), "{subject}: {}", output_of(&output));
    }
}

#[test]
fn check_commits_works_in_a_shallow_clone() {
    let repository = Repository::with(&["check-commits"]);
    repository.commit("limit: seed new buckets");
    repository.commit("Seeds new buckets");
    for (depth, accepted) in [("1", true), ("2", false)] {
        let clone = tempfile::tempdir().unwrap();
        let source = format!("file://{}", repository.path().display());
        repository.git(&["clone", "--quiet", "--depth", depth, &source, clone.path().to_str().unwrap()]);
        let output = Command::new(clone.path().join("scripts/check-commits")).output().unwrap();
        assert_eq!(is_accepted(&output), accepted, "depth {depth}: {}", output_of(&output));
    }
}

#[test]
fn check_words_rejects_a_phrase_that_becomes_more_frequent() {
    let repository = Repository::with(&["check-words"]);
    repository.write("scripts/words.txt", "# Words.\n1 | \\bfrobs\\b | adjusts\n");
    for (text, accepted) in [("it adjusts", true), ("it frobs", true), ("it frobs\nand Frobs", false)] {
        repository.write("text.md", text);
        let output = repository.run("check-words", &[]);
        assert_eq!(is_accepted(&output), accepted, "{text}: {}", output_of(&output));
    }
    assert!(output_of(&repository.run("check-words", &[])).contains("text.md:2: and Frobs"));
    repository.write("text.md", "it adjusts");
    assert!(output_of(&repository.run("check-words", &[])).contains("lower the number from 1"));
    repository.write("new.md", "it frobs");
    assert!(!is_accepted(&repository.run("check-words", &["new.md"])), "a named file must contain none");
}

#[test]
fn a_check_whose_program_cannot_be_installed_is_skipped_unless_lint_is_strict() {
    use std::os::unix::fs::PermissionsExt as _;

    let repository = Repository::with(&["lint", "tool"]);
    repository.write("python3", "#!/bin/sh\nexit 1\n");
    fs::set_permissions(repository.path().join("python3"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", repository.path().display(), std::env::var("PATH").unwrap());
    for (strict, accepted) in [("", true), ("1", false)] {
        let mut lint = Command::new(repository.path().join("scripts/lint"));
        lint.arg("typos").env("PATH", &path).env("XDG_CACHE_HOME", repository.path()).env("LINT_STRICT", strict);
        let output = lint.output().unwrap();
        assert_eq!(is_accepted(&output), accepted, "{}", output_of(&output));
        assert!(output_of(&output).contains("lint: not checked: typos"), "{}", output_of(&output));
    }
}

#[test]
fn check_msrv_compares_the_compiler_with_the_minimum_supported_rust_version() {
    let repository = Repository::with(&["check-msrv"]);
    let pinned = |version: &str| format!("[toolchain]\nchannel = \"{version}\"\n");
    let toolchain = fs::read_to_string("rust-toolchain.toml").unwrap();
    let current = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    let declared = current.rsplit_once('.').unwrap().0;
    for (manifest, channel, image, accepted) in [
        (declared, current, current, true),
        ("1.0", current, current, false),
        (declared, "1.0.0", current, false),
        (declared, current, "1", false),
    ] {
        repository.write("Cargo.toml", &format!("[package]\nrust-version = \"{manifest}\"\n"));
        repository.write("rust-toolchain.toml", &pinned(channel));
        repository.write("Dockerfile", &format!("FROM rust:{image}-alpine AS build\n"));
        let output = repository.run("check-msrv", &[]);
        assert_eq!(is_accepted(&output), accepted, "{manifest} {channel} {image}: {}", output_of(&output));
    }
}

#[test]
fn every_file_that_the_guides_name_exists() {
    for page in ["CONTRIBUTING.md", "SECURITY.md"] {
        let text = fs::read_to_string(page).unwrap();
        let folders = ["src/", "tests/", "config/", "docs/", "examples/", "scripts/", ".ci/"];
        let is_path = |word: &&str| folders.iter().any(|folder| word.starts_with(folder)) && !word.contains(' ');
        let named: Vec<_> = text.split(['`', '(', ')']).filter(is_path).collect();
        assert!(!named.is_empty(), "{page}");
        for path in named.into_iter().filter_map(|path| path.split('#').next()) {
            assert!(Path::new(path).exists(), "{page} names {path}, which does not exist");
        }
    }
}
