//! What `calgate check` says about each mistake: one bad file for each, its message beside it.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use calgate::config::Config;

const FOLDER: &str = "tests/data/config/bad";

/// The names of the files with that extension.
fn names(extension: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path());
    let matching = entries.filter(|path| path.extension().is_some_and(|end| end == extension));
    matching.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

fn message(name: &str) -> String {
    let unusable = Config::from_file(Path::new(&format!("{FOLDER}/{name}.toml"))).unwrap_err();
    assert_eq!(unusable.problems.len() > 1, name.starts_with("several-"), "{unusable}");
    assert_eq!(unusable.lines().len(), unusable.problems.len());
    unusable.to_string()
}

#[test]
fn each_mistake_is_shown_in_its_line_with_what_is_allowed() {
    fs::set_permissions("tests/data/config/open-secret", Permissions::from_mode(0o644)).unwrap();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../data/config/bad");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for name in names("toml") {
            insta::assert_snapshot!(&*name, message(&name));
        }
    });
    assert_eq!(names("snap"), names("toml"), "messages of files that are gone");
}

#[test]
fn no_message_shows_a_secret() {
    for name in names("toml") {
        let unusable = Config::from_file(Path::new(&format!("{FOLDER}/{name}.toml"))).unwrap_err();
        assert!(!format!("{unusable} {unusable:?} {:?}", unusable.lines()).contains("not_a_real_key"), "{name}");
    }
}

#[test]
fn no_message_shows_what_is_no_toml() {
    for line in [
        "api_key: \"cal_live_not_a_real_key\"",
        "api_key \"cal_live_not_a_real_key\"",
        "api_key cal_live_not_a_real_key",
        "cal_live_not_a_real_key",
        "\"cal_live_not_a_real_key\"",
        "not_a_real_key==",
        "api_key: \"not_a_real_key==\"",
        "api_key: { env = \"not_a_real_key\" }",
        "[not_a_real_key",
        "[credentials.main] not_a_real_key",
        "api_key = cal_live_not_a_real_key",
        "api_key = \"a\" not_a_real_key",
        "api_key = \"\"\"\nnot_a_real_key",
        "api_key = '''\n\nnot_a_real_key\n",
        "api_key = [\n\"not_a_real_key\" \"x\"\n]",
        "api_key = [\nnot_a_real_key\n]",
        "api_key = {\n\"not_a_real_key\"\n}",
        "api_key =\n\"not_a_real_key\"",
        "api_key:\nnot_a_real_key",
    ] {
        for rest in ["", "\n", "\r\n", "\n\n  \n", "\nplan = \"teams\"\n"] {
            for before in ["", "[credentials.main]\nkind = \"api-key\"\n"] {
                let text = format!("{before}{line}{rest}");
                let unusable = Config::parse("calgate.toml", &text).unwrap_err();
                let said = format!("{unusable} {unusable:?} {:?}", unusable.lines());
                assert!(!said.contains("not_a_real_key"), "{text:?}: {said}");
            }
        }
    }
}

#[test]
fn a_log_line_names_file_line_and_column() {
    let unusable = Config::parse("calgate.toml", "[listen]\n\n[tiers.premium]\nrequests_per_minute = 0\n").unwrap_err();
    let expected = "calgate.toml:4:23: `tiers.premium.requests_per_minute` has to be a whole number from 1 to 1000000";
    assert_eq!(unusable.lines(), [expected]);
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let gone = Config::from_file(Path::new("tests/data/config/nowhere.toml")).unwrap_err().to_string();
    assert!(gone.contains("nowhere.toml") && gone.contains("cannot be read: No such file"), "{gone}");
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("binary.toml");
    fs::write(&binary, b"[listen]\naddress = \"\xff\"\n").unwrap();
    let binary = Config::from_file(&binary).unwrap_err().to_string();
    assert!(binary.contains("cannot be read") && binary.contains("UTF-8"), "{binary}");
}
