//! Tests of `calgate check` and `calgate key`.

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
    assert_eq!(text(&output.stdout), "the configuration is valid: 0 consumers, 0 credentials, 340 endpoints\n");
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
    let (_folder, file) = config_file("[token_store]\npostgres = { env = \"PG\" }\nseal_keys = [{ env = \"SEAL\" }]\n");
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
fn each_key_of_the_old_store_section_is_an_error_that_names_the_new_key() {
    let keys = [
        ("path = \"/canary/tokens.db\"", "`store.path` is now `token_store.path`"),
        ("postgres = \"postgres://u:canary@h/d\"", "`store.postgres` is now `token_store.postgres`"),
        ("ca_file = \"/canary.pem\"", "`store.ca_file` is now `token_store.ca_file`"),
        ("seal_keys = [\"canary\"]", "`store.seal_keys` is now `token_store.seal_keys`"),
        ("redis = \"redis://u:canary@h\"", "`store.redis` is now `limit_store.redis`"),
        ("redis_kind = \"cluster\"", "`store.redis_kind` is now `limit_store.kind`"),
        ("redis_sentinel = \"canary\"", "`store.redis_sentinel` is now `limit_store.sentinel`"),
        ("redis_ca_file = \"/canary.pem\"", "`store.redis_ca_file` is now `limit_store.ca_file`"),
        ("redis_timeout = \"250ms\"", "`store.redis_timeout` is now `limit_store.timeout`"),
        ("on_store_loss = \"closed\"", "`store.on_store_loss` is now `limit_store.on_loss`"),
    ];
    let lines = keys.map(|(line, _)| format!("{line}\n")).concat();
    let (_folder, file) = config_file(&format!(
        "[store]\n{lines}[credentials.app]\nkind = \"oauth\"\n\
                                                client_id = \"clabc\"\nplan = \"teams\"\n"
    ));
    for command in ["check", "serve"] {
        let output = run(&[command, "--config", &file], &[]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        for (at, (_, message)) in keys.iter().enumerate() {
            let place = format!("{file}:{}:1", at + 2);
            assert!(said.contains(message) && said.contains(&place), "{command}: {message} {place} is not in\n{said}");
        }
        assert!(said.contains("10 problems") && !said.contains("canary"), "{command}: no other mistake\n{said}");
    }
}

#[test]
fn both_stores_have_a_section_of_their_own() {
    let (_folder, file) = config_file(
        "[token_store]\npostgres = { env = \"PG\" }\nca_file = \"tests/data/config/ca.pem\"\n\
         seal_keys = [{ env = \"SEAL\" }]\n\
         [limit_store]\nredis = \"rediss://a,rediss://b\"\nkind = \"sentinel\"\nsentinel = \"mymaster\"\n\
         ca_file = \"tests/data/config/ca.pem\"\ntimeout = \"250ms\"\non_loss = \"share\"\n",
    );
    let output = run(&["check", "--config", &file], &[("PG", "postgres://u:p@h/x"), ("SEAL", SEAL_KEY)]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
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

/// Returns the exit code and the output of `check` for a configuration.
fn checked(config: &str, args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let (_folder, file) = config_file(config);
    let output = run(&[&["check", "--config", &file], args].concat(), variables);
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn what_is_probably_a_mistake_is_a_warning_in_its_line() {
    let config = "[listen]\naddress = \"0.0.0.0:8080\"\nadmin = \"0.0.0.0:9090\"\n\
                  [credentials.main]\nkind = \"api-key\"\napi_key = { env = \"KEY\" }\nplan = \"teams\"\n\
                  [credentials.spare]\nkind = \"api-key\"\napi_key = { env = \"SPARE\" }\nplan = \"teams\"\n\
                  [consumers.app]\ncredential = \"main\"\n\
                  [consumers.billing]\ncredential = \"main\"\ntier = \"premium\"\n\
                  keys = [{ hash = \"sha256:0048163b989438d8cdf6636401ab1000f0c942dabc2f9a1e818279527719f6df\", expires = 2020-01-01T00:00:00Z }]\n\
                  [consumers.nobody]\ncredential = \"main\"\n\
                  [anonymous]\nconsumer = \"app\"\n";
    let long = "k".repeat(5_000);
    for (key, expected) in [
        ("calgate_0123456789", "`credentials.main.api_key` holds a gateway key"),
        ("\"cal_live_0123456789\"", "`credentials.main.api_key` begins or ends with a quotation mark"),
        (&long, "`credentials.main.api_key` has 5000 characters"),
    ] {
        let (code, said) = checked(config, &[], &[("KEY", key), ("SPARE", "cal_live_1")]);
        assert_eq!(code, Some(0), "{said}");
        let warnings = [
            (2, "anyone who reaches `listen.address` acts as the consumer `app`"),
            (2, "calgate does not offer TLS there"),
            (3, "`listen.admin` is reachable over a network"),
            (6, expected),
            (8, "no consumer uses `credentials.spare`"),
            (16, "the tier `premium` of `consumers.billing` allows 800 requests per minute"),
            (14, "1 of the 1 keys of `consumers.billing` have expired"),
            (18, "`consumers.nobody` has no key"),
        ];
        for (line, warning) in warnings {
            let is_said = |said: &str| said.contains(&format!("calgate.toml:{line}:")) && said.contains(warning);
            assert!(said.lines().any(is_said), "line {line}: {warning}\n{said}");
        }
        assert_eq!(said.lines().filter(|line| line.starts_with("warning: ")).count(), warnings.len(), "{said}");
        assert!(!said.contains(key), "{said}");
    }
}

#[test]
fn a_configuration_can_be_checked_where_its_secrets_are_not() {
    let config = "[credentials.main]\nkind = \"api-key\"\napi_key = { file = \"/run/secrets/nowhere\" }\nplan = \"teams\"\n\
                  [credentials.app]\nkind = \"oauth\"\nclient_id = \"a\"\nclient_secret = { env = \"NOT_SET\" }\nplan = \"teams\"\n\
                  [consumers.billing]\ncredential = \"main\"\n\
                  [token_store]\npostgres = { env = \"NOT_SET\" }\nseal_keys = [{ env = \"NOT_SET\" }]\n\
                  [limit_store]\nredis = { env = \"NOT_SET\" }\n";
    let (code, said) = checked(config, &[], &[]);
    assert!(code == Some(2) && said.contains("NOT_SET is not set"), "{said}");
    let (code, said) = checked(config, &["--without-secrets"], &[]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = checked(&config.replace("\"teams\"", "\"teems\""), &["--without-secrets"], &[]);
    assert!(code == Some(2) && said.contains("did you mean `teams`?"), "{said}");
    let written = config.replace("{ file = \"/run/secrets/nowhere\" }", "\"cal_live_canary\"");
    let (code, said) = checked(&written, &["--without-secrets"], &[]);
    assert!(code == Some(2) && said.contains("must not be written in the configuration"), "{said}");
    assert!(!said.contains("canary"), "{said}");
}

#[test]
fn of_very_many_mistakes_fifty_are_shown_and_the_rest_are_counted() {
    let mut config = String::from("[listen]\nadress = 1\n");
    for number in 0..20_000 {
        config += &format!("[consumers.c{number}]\ncredential = \"nothing\"\n");
    }
    let (code, said) = checked(&config, &[], &[]);
    assert_eq!(code, Some(2));
    assert_eq!(said.matches("error: ").count(), 50);
    assert!(said.ends_with("50 problems, and 19951 more that are not shown\n"), "{}", &said[said.len() - 200..]);
}

#[test]
fn a_broken_line_shows_what_cannot_be_a_secret() {
    for (line, shown, hidden) in [
        ("plan = teams", "plan = teams", ""),
        ("plan = \"teams", "plan = \"teams", ""),
        ("tier = premium # for cal_live_canary", "tier = premium *", "canary"),
        ("tags = [\"Me\", Bookings]", "tags = [\"Me\", Bookings]", ""),
        ("plan = teams api_key = \"canary\"", "plan = teams api_key ", "canary"),
        ("base_url = https://user:canary@cal.com", "base_url = ", "canary"),
        ("plan = cal_live_canary", "plan = ", "canary"),
        ("plan = 0123456789012345678901234canary", "plan = ", "canary"),
        ("api_key = canary", "api_key =", "canary"),
        ("api_key = { env = canary", "api_key =", "canary"),
        ("[credentials.main", "[credentials.main", ""),
    ] {
        let (code, said) = checked(&format!("[listen]\n{line}\n"), &[], &[]);
        assert_eq!(code, Some(2), "{line}");
        assert!(said.contains(&format!("2 | {shown}")), "{line} is shown as\n{said}");
        assert!(hidden.is_empty() || !said.contains(hidden), "{line} is shown as\n{said}");
    }
}

#[test]
fn a_store_folder_that_serve_would_not_use_is_a_mistake() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let config = format!(
        "[token_store]\npath = \"{}/tokens.db\"\nseal_keys = [{{ env = \"SEAL\" }}]\n",
        folder.path().display()
    );
    let seal = [("SEAL", SEAL_KEY)];
    let (code, said) = checked(&config, &[], &seal);
    assert_eq!(code, Some(0), "{said}");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (code, said) = checked(&config, &[], &seal);
    assert!(
        code == Some(2)
            && said.contains("`token_store.path`: ")
            && said.contains("the folder")
            && said.contains("chmod 700"),
        "{said}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is made");
}
