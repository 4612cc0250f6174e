//! `calgate catalog`.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::serve::{run, text};

/// A document of three operations, as Cal.com writes them.
fn document() -> Value {
    let operation = |tag: &str| json!({ "tags": [tag], "parameters": [{ "name": "Authorization", "in": "header", "required": true }] });
    json!({ "openapi": "3.0.0", "paths": {
        "/v2/me": { "get": operation("Me"), "patch": operation("Me") },
        "/v2/teams/{teamId}": { "get": operation("Teams") },
    }})
}

fn write(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_document_becomes_a_catalog_that_a_newer_one_is_compared_with() {
    let folder = tempfile::tempdir().unwrap();
    let old = write(&folder, "openapi.json", &document().to_string());
    let catalog = folder.path().join("catalog.toml").to_str().unwrap().to_owned();
    assert_eq!(run(&["catalog", "import", &old, "--out", &catalog], &[]).status.code(), Some(0));
    let same = run(&["catalog", "diff", &old, "--catalog", &catalog], &[]);
    assert_eq!((same.status.code(), text(&same.stdout)), (Some(0), "0 changes; 3 operations before, 3 after\n".into()));

    let mut newer = document();
    newer["paths"]["/v2/me"].as_object_mut().unwrap().remove("patch");
    newer["paths"]["/v2/teams/{teamId}"]["get"]["tags"][0] = "Teams / Members".into();
    newer["paths"]["/v2/new"]["get"] = document()["paths"]["/v2/me"]["get"].clone();
    let newer = write(&folder, "newer.json", &newer.to_string());
    let output = run(&["catalog", "diff", &newer, "--catalog", &catalog], &[]);
    assert_eq!(output.status.code(), Some(3));
    insta::assert_snapshot!(text(&output.stdout), @r"
    dropped  PATCH /v2/me  (Me)
    added    GET /v2/new  (Me)
    moved    GET /v2/teams/{teamId}  tag: Teams -> Teams / Members
    3 changes; 3 operations before, 3 after
    ");
}

#[test]
fn what_is_no_document_or_has_a_tag_of_no_known_kind_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let other = write(&folder, "other.json", "{\"swagger\": \"2.0\"}");
    let output = run(&["catalog", "import", &other], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("this is not Cal.com's API document"), "{output:?}");
    let mut odd = document();
    odd["paths"]["/v2/me"]["get"]["tags"][0] = "Deprecated: Organizations Things".into();
    let odd = write(&folder, "odd.json", &odd.to_string());
    let output = run(&["catalog", "import", &odd], &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("GET /v2/me"), "{output:?}");
}

#[test]
fn the_built_in_catalog_can_be_listed() {
    let plain = text(&run(&["catalog", "list"], &[]).stdout);
    assert_eq!(plain.lines().count(), 272);
    let json: Vec<Value> = serde_json::from_slice(&run(&["catalog", "list", "--json"], &[]).stdout).unwrap();
    assert_eq!(json.len(), 272);
    let cancel = json.iter().find(|e| e["path"] == "/v2/bookings/{bookingUid}/cancel").unwrap();
    assert_eq!(
        *cancel,
        json!({
            "method": "POST", "path": "/v2/bookings/{bookingUid}/cancel", "tag": "Bookings", "prefix": "(unprefixed)",
            "credential": "either", "public": true, "api_version": "2024-08-13", "requests_per_minute": null,
            "credential_operation": false,
        })
    );
}

#[test]
fn that_its_reader_has_left_is_no_fault_and_a_full_disk_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let document = write(&folder, "openapi.json", &document().to_string());
    let into = |args: &[&str], out: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_calgate"));
        command.args(args).arg(&document).stdin(Stdio::null()).stdout(out).stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    for (args, expected) in [(["catalog", "import"], 0), (["catalog", "diff"], 3)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(into(&args, writer.into()), (Some(expected), String::new()), "{args:?}");
        if cfg!(target_os = "linux") {
            let (code, said) = into(&args, std::fs::File::create("/dev/full").unwrap().into());
            assert_eq!(code, Some(1), "{args:?}");
            assert!(said.starts_with("calgate: standard output cannot be written: "), "{said}");
        }
    }
}
