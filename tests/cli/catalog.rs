//! Tests of `calgate catalog`.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::serve::{run, text};
use crate::given::known_document as document;

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
    assert_eq!(
        (same.status.code(), text(&same.stdout)),
        (Some(0), "0 changes; 340 operations before, 340 after\n".into())
    );

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
    3 changes; 340 operations before, 340 after
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
    assert_eq!(plain.lines().count(), 340);
    let json: Vec<Value> = serde_json::from_slice(&run(&["catalog", "list", "--json"], &[]).stdout).unwrap();
    assert_eq!(json.len(), 340);
    let cancel = json.iter().find(|e| e["path"] == "/v2/bookings/{bookingUid}/cancel").unwrap();
    assert_eq!(
        *cancel,
        json!({
            "method": "POST", "path": "/v2/bookings/{bookingUid}/cancel", "tag": "Bookings", "prefix": "(unprefixed)",
            "credential": "either", "public": true, "api_version": "2024-08-13", "requests_per_minute": null,
            "api_versions": ["2024-04-15", "2024-06-11", "2024-06-14", "2024-08-13"],
            "credential_operation": false, "echoes_credential": false, "documented": true,
        })
    );
}

#[test]
fn what_calgate_knows_of_an_operation_is_not_lost_unsaid() {
    let folder = tempfile::tempdir().unwrap();
    let mut document = document();
    let paths = document["paths"].as_object_mut().unwrap();
    let forced = paths.remove("/v2/oauth-clients/{clientId}/users/{userId}/force-refresh").unwrap();
    paths.insert("/v2/oauth-clients/{clientId}/users/{userId}/renew".to_owned(), forced);
    let guests = paths.remove("/v2/bookings/{bookingUid}/guests").unwrap();
    paths.insert("/v2/bookings/{uid}/guests".to_owned(), guests);
    write(&folder, "openapi.json", &document.to_string());
    let in_folder = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_calgate"));
        let output = command.current_dir(&folder).arg("catalog").args(args).output().unwrap();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let import = ["import", "openapi.json", "--out", "catalog.toml"];
    let (code, said) = in_folder(&import);
    assert_eq!(code, Some(1));
    insta::assert_snapshot!(said, @r#"
    calgate: openapi.json: it has no operation like POST /v2/oauth-clients/{clientId}/users/{userId}/force-refresh  (shows or changes credentials: credential_operation = true)
    No catalog was written, because it would lose what calgate knows about these operations. For each operation that
    Cal.com has removed, add --gone "METHOD /path". For each operation that Cal.com has moved, add it, too, and write the
    line that is named above at the new place in the new catalog before you use it.
    "#);
    assert!(!folder.path().join("catalog.toml").exists());

    let (code, said) = in_folder(&["diff", "openapi.json"]);
    assert_eq!(code, Some(3));
    insta::assert_snapshot!(said, @r"
    moved    POST /v2/bookings/{uid}/guests  path: /v2/bookings/{bookingUid}/guests -> /v2/bookings/{uid}/guests
    dropped  POST /v2/oauth-clients/{clientId}/users/{userId}/force-refresh  (Platform / Managed Users)  credential_operation: true
    added    POST /v2/oauth-clients/{clientId}/users/{userId}/renew  (Platform / Managed Users)
    LOST     POST /v2/oauth-clients/{clientId}/users/{userId}/force-refresh  (shows or changes credentials: credential_operation = true)
    4 changes; 340 operations before, 340 after
    ");

    let gone = ["--gone", "POST /v2/oauth-clients/{clientId}/users/{userId}/force-refresh"];
    assert_eq!(in_folder(&[&import[..], &gone].concat()), (Some(0), String::new()));
    let (code, _) = in_folder(&["diff", "openapi.json", "--catalog", "catalog.toml"]);
    assert_eq!(code, Some(0));
}

#[test]
fn that_its_reader_has_left_is_no_fault_and_a_full_disk_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut newer = document();
    newer["paths"]["/v2/me"].as_object_mut().unwrap().remove("patch");
    let document = write(&folder, "openapi.json", &newer.to_string());
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
            assert!(said.starts_with("calgate: cannot write to standard output: "), "{said}");
        }
    }
}
