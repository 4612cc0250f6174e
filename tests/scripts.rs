//! The checks in `scripts/` that are this project's own, and the files that the guide for contributors names.

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
        repository.commit("Whatever was before the check is not looked at");
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

fn said(output: &Output) -> String {
    [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat()
}

#[test]
fn a_commit_subject_names_its_scope_and_is_imperative() {
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
        assert!(is_accepted(&repository.run("check-commits", &[])), "only earlier commits");
        repository.commit(subject);
        let output = repository.run("check-commits", &[]);
        assert_eq!(is_accepted(&output), fault.is_none(), "{subject}: {}", said(&output));
        assert!(fault.is_none_or(|fault| said(&output).contains(fault)), "{subject}: {}", said(&output));
    }
}

#[test]
fn commit_subjects_are_checked_in_a_shallow_clone() {
    let repository = Repository::with(&["check-commits"]);
    repository.commit("limit: seed new buckets");
    repository.commit("Seeds new buckets");
    for (depth, accepted) in [("1", true), ("2", false)] {
        let clone = tempfile::tempdir().unwrap();
        let source = format!("file://{}", repository.path().display());
        repository.git(&["clone", "--quiet", "--depth", depth, &source, clone.path().to_str().unwrap()]);
        let output = Command::new(clone.path().join("scripts/check-commits")).output().unwrap();
        assert_eq!(is_accepted(&output), accepted, "depth {depth}: {}", said(&output));
    }
}

#[test]
fn a_word_of_the_list_may_not_become_more_frequent() {
    let repository = Repository::with(&["check-words"]);
    repository.write("scripts/words.txt", "# Words.\n1 | \\bfrobs\\b | adjusts\n");
    for (text, accepted) in [("it adjusts", true), ("it frobs", true), ("it frobs\nand Frobs", false)] {
        repository.write("text.md", text);
        let output = repository.run("check-words", &[]);
        assert_eq!(is_accepted(&output), accepted, "{text}: {}", said(&output));
    }
    assert!(said(&repository.run("check-words", &[])).contains("text.md:2: and Frobs"));
    repository.write("text.md", "it adjusts");
    assert!(said(&repository.run("check-words", &[])).contains("lower the number from 1"));
    repository.write("new.md", "it frobs");
    assert!(!is_accepted(&repository.run("check-words", &["new.md"])), "a named file may have none");
}

#[test]
fn the_minimum_supported_rust_version_is_the_compiler_of_the_build() {
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
        assert_eq!(is_accepted(&output), accepted, "{manifest} {channel} {image}: {}", said(&output));
    }
}

#[test]
fn the_guide_for_contributors_names_files_that_exist() {
    for page in ["CONTRIBUTING.md", "SECURITY.md"] {
        let text = fs::read_to_string(page).unwrap();
        let folders = ["src/", "tests/", "config/", "docs/", "examples/", "scripts/", ".ci/"];
        let is_path = |word: &&str| folders.iter().any(|folder| word.starts_with(folder)) && !word.contains(' ');
        let named: Vec<_> = text.split(['`', '(', ')']).filter(is_path).collect();
        assert!(!named.is_empty(), "{page}");
        for path in named.into_iter().filter_map(|path| path.split('#').next()) {
            assert!(Path::new(path).exists(), "{page} names {path}, which is not there");
        }
    }
}
