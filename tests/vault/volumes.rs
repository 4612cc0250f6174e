//! Volumes without hard links or without file locks.

use std::process::Command;

use crate::cal_sim::options::TokenRules;
use crate::credential::rig::Rig;

/// Builds a library with these functions. Returns the variable that loads it before the system's library.
fn build_preload(rig: &Rig, functions: &str) -> (String, String) {
    let (source, library) = (rig.folder.path().join("volume.c"), rig.folder.path().join("volume.so"));
    std::fs::write(&source, format!("#include <errno.h>\n{functions}")).unwrap();
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(made.expect("a C compiler; `make test` installs it").success());
    ("LD_PRELOAD".to_owned(), library.to_str().unwrap().to_owned())
}

#[test]
fn creates_a_store_on_a_volume_without_hard_links() {
    let mut rig = Rig::new(TokenRules::default());
    let none = "int link(const char *a, const char *b) { errno = EPERM; return -1; }\n\
                int linkat(int a, const char *b, int c, const char *d, int e) { errno = EPERM; return -1; }\n";
    let variable = build_preload(&rig, none);
    rig.environment.push(variable);
    rig.import_app();
    assert_eq!(rig.start().ask("GET /v2/me", &[]).status, 200);
    let files = std::fs::read_dir(rig.file().parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!files.into_iter().any(|name| name.to_string_lossy().contains("new-")), "nothing unfinished is left");
}

#[test]
fn the_error_names_a_volume_without_file_locks() {
    let mut rig = Rig::new(TokenRules::default());
    let variable = build_preload(&rig, "int flock(int a, int b) { errno = ENOLCK; return -1; }\n");
    rig.environment.push(variable);
    let said = rig.refused(&["credentials", "import", "app"], "{\"access_token\":\"a\"}");
    assert!(said.contains("has no file locks") && said.contains("token_store.postgres"), "{said}");
}
