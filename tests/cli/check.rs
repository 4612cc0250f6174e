//! `calgate check` and `calgate key`.

use std::io::Write as _;
use std::process::Stdio;

use calgate::identify::GatewayKey;

use super::serve::{command, config_file, run, text};
use crate::credential::rig::SEAL_KEY;

#[test]
fn a_good_configuration_is_said_to_be_one() {
    let (_folder, file) = config_file("# All defaults.\n");
    let output = run(&["check", "--config", &file], &[]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    assert_eq!(text(&output.stdout), "the configuration is good: 0 consumers, 0 credentials, 340 endpoints\n");
}

#[test]
fn every_mistake_is_reported_at_once_in_its_place_without_what_may_be_a_secret() {
    let mistakes = "[listen]\nadress = \"x\"\n[credentials.main]\nkind = \"api-key\"\napi_key = \"cal_canary1\"\n\
                    plan = \"team\"\n[consumers.billing]\nkeys = [\"calgate_canary2\"]\ncredential = \"mian\"\n\
                    client_secret = \"canary3\"\n[sectoin]\nx = \"canary4\"\nkey = \"canary5\n";
    let (_folder, file) = config_file(mistakes);
    let output = run(&["check", "--config", &file], &[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for expected in [
        "unknown key `listen.adress`",
        "did you mean `address`?",
        "`credentials.main.api_key` must not be written in the configuration",
        "did you mean `teams`?",
        "this is a key itself, not its hash",
        "did you mean `main`?",
        "unknown key `sectoin`",
        "calgate.toml:9:14",
        "problems",
    ] {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
    assert!(!said.contains("canary"), "{said}");
}

#[test]
fn a_store_that_serve_could_not_use_is_a_mistake() {
    let (_folder, file) = config_file("[store]\npostgres = { env = \"PG\" }\nseal_keys = [{ env = \"SEAL\" }]\n");
    for command in ["check", "serve"] {
        let bad = [("PG", "postgres://u:p@h:notaport/x"), ("SEAL", SEAL_KEY)];
        let output = run(&[command, "--config", &file], &bad);
        assert_eq!(output.status.code(), Some(2), "{command}: {output:?}");
        let said = text(&output.stderr);
        assert!(said.contains("calgate.toml:2:12") && !said.contains("u:p@"), "{said}");
    }
    let good = [("PG", "postgres://u:p@h:5432/x"), ("SEAL", SEAL_KEY)];
    assert_eq!(run(&["check", "--config", &file], &good).status.code(), Some(0), "nothing is opened");
}

#[test]
fn a_configuration_that_comes_through_a_pipe_is_read_and_not_taken_for_an_empty_one() {
    for (written, code) in [("[upstream]\nhttp2 = false\n", 0), ("this is no TOML [", 2), ("\n", 2)] {
        let mut command = command(&["check", "--config", "/dev/stdin"], &[]);
        let mut check = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        check.stdin.take().unwrap().write_all(written.as_bytes()).unwrap();
        let output = check.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{written}: {output:?}");
    }
}

#[test]
fn a_variable_that_is_set_to_nothing_names_no_file() {
    let output = run(&["check"], &[("CALGATE_CONFIG", ""), ("CAL_API_KEY", "cal_test_0123456789")]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_missing_configuration_says_what_to_do() {
    let output = run(&["check"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--config or CALGATE_CONFIG, or set CAL_API_KEY"), "{output:?}");
    let output = run(&["check", "--config", "/nonexistent/calgate.toml"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cannot be read"), "{output:?}");
}

#[test]
fn a_new_key_is_one_that_the_configuration_knows_by_its_hash() {
    let output = run(&["key", "new", "billing"], &[]);
    let said = text(&output.stdout);
    let key = said.split_whitespace().find(|word| word.starts_with("calgate_")).expect("a key");
    let hash = GatewayKey::parse(key).expect("its checksum agrees").hash().to_string();
    assert!(said.contains(&format!("keys = [\"{hash}\"]")), "{said}");
    let again = text(&run(&["key", "new", "billing"], &[]).stdout);
    assert!(!again.contains(key), "every key is new");
}

#[test]
fn a_new_key_is_for_a_name_that_the_configuration_takes() {
    for name in ["a b", "", "a]", "é"] {
        let output = run(&["key", "new", name], &[]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(text(&output.stderr).contains("use letters, digits"), "{output:?}");
    }
    let said = text(&run(&["key", "new", "team.billing"], &[]).stdout);
    assert!(said.contains("[consumers.\"team.billing\"]"), "{said}");
}
