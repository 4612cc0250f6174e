//! Error messages: one bad file per mistake, with a snapshot of its message.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use calgate::config::{Config, Secrets};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::properties::cases;

const FOLDER: &str = "tests/data/config/bad";

/// Returns the names of the files with an extension.
fn names(extension: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path());
    let matching = entries.filter(|path| path.extension().is_some_and(|end| end == extension));
    matching.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

fn message(name: &str) -> String {
    let error = Config::from_file(Path::new(&format!("{FOLDER}/{name}.toml")), Secrets::Read).unwrap_err();
    assert_eq!(error.diagnostics.len() > 1, name.starts_with("several-"), "{error}");
    assert_eq!(error.lines().len(), error.diagnostics.len());
    error.to_string()
}

#[test]
fn each_mistake_is_shown_in_its_line_with_the_remedy() {
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
    assert_eq!(names("snap"), names("toml"), "a snapshot without its file");
}

#[test]
fn no_message_shows_a_secret() {
    for name in names("toml") {
        let error = Config::from_file(Path::new(&format!("{FOLDER}/{name}.toml")), Secrets::Read).unwrap_err();
        assert!(!format!("{error} {error:?} {:?}", error.lines()).contains("not_a_real_key"), "{name}");
    }
}

/// Returns all forms of the error about an invalid configuration.
fn messages_of(text: &str) -> String {
    let error = Config::parse("calgate.toml", text).unwrap_err();
    format!("{error} {error:?} {:?}", error.lines())
}

#[test]
fn no_message_shows_a_secret_in_a_wrong_place() {
    for text in [
        "[token_store]\npath = \"x\"\nseal_keys = \"CANARY\"",
        "[token_store]\npath = \"x\"\nseal_keys = [[\"CANARY\"], 5]",
        "[limit_store]\nredis = \"redis://default:CANARY\"",
        "[store]\npostgres = \"CANARY\"\nredis_timeout = [\"CANARY\"]\nseal_keys = [\n\"CANARY\",\n{ \"CANARY\" = \"CANARY\" }]",
        "[store]\n\"CANARY\" = \"CANARY\" # CANARY",
        "[store.redis]\nfile = \"CANARY\"\n\"CANARY\" = 1",
        "[[store]]\nredis = \"CANARY\"",
        "store = \"CANARY\"",
        "[sotre]\nx = { \"CANARY\" = 1 }",
        "[limit_store]\nredis = \"CANARY\"",
        "[limit_store]\nredis = \"http://h?password=CANARY\"",
        "[limit_store]\nredis = { url = \"CANARY\" }",
        "[upstream]\nproxy = \"CANARY\"",
        "[upstream]\nproxy = \"http://u:CANARY@h\"",
        "[upstream]\nproxy = \"socks5://u:CANARY@h\"",
        "[upstream]\nproxy = { url = \"CANARY\" }",
        "[consumers.a]\nkeys = \"CANARY\"",
        "[consumers.a]\nkeys = [[\"CANARY\"]]",
        "[consumers.a]\nkeys = [{ hash = [\"CANARY\"] }]",
        "[consumers.a]\nkeys = [{ hash = \"CANARY\" }]",
        "[consumers.a]\nmanaged_users = { a = \"CANARY\" }",
        "[consumers]\nkeys = [\"CANARY\"]",
        "[credentials]\napi_key = \"CANARY\"",
        "[credentials]\nmain = \"CANARY\"",
        "[credentials]\nmain = [\"CANARY\"]",
        "credentials = \"CANARY\"",
        "[credentials]\nmain = { kind = \"apikey\", api_key = \"CANARY\" }",
        "[credentials]\nmain = { api_key = \"CANARY\", client_secret = \"CANARY\" }",
        "[credentials]\nmain = { kind = [\"CANARY\"], api_key = { env = \"CANARY\" } }",
        "[credentials]\nmain = { kind = \"api-key\", api_key = { env = \"CANARY\" } }",
        "[credentials]\nmain = { kind = \"api-key\", api_key = { env = [\"CANARY\"] } }",
        "[credentials]\nmain = { kind = \"api-key\", api_key = { file = \"CANARY\" } }",
        "[credentials]\nmain = { kind = \"api-key\", api_key = { file = \"CANARY\", env = \"CANARY\" } }",
        "[credentials]\nmain = { kind = \"api-key\", api_key = { value = \"CANARY\" } }",
        "[credentials]\nmain = { kind = \"api-key\", api_key = { \"CANARY\" = true } }",
        "[listen]\nworkers = 0 # CANARY\n[log]\nlevel = '#' # CANARY # CANARY",
        "[token_store]\npath = \"x\"\nseal_keys = [ # CANARY\n{ env = \"A#\" }, # CANARY\n]",
        "[listen]\nworkers = [\"CANARY\"]\naddress = { a = \"CANARY\" }\ncors_origins = [[\"CANARY\"]]",
        "[limits]\nx = 1\n[[limits.y]]\napi_key = \"CANARY\"",
    ] {
        for secret in [
            "cal_live_0123456789abcdef0123456789abcdef",
            "cal_not_a_real_key",
            "calgate_billing_not_a_real_key",
            "bm90IGEgcmVhbCBrZXksIG5vdCBhIHJlYWwga2V5IQ==",
            "bm90IGEgcmVhbCB/ZXksIG5vdCB+IHJlYWwga2V5IQo",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "A0123456789ABCDEF0123456789ABCDEF0123456789abcdef",
            "eyJhbGciOiJIUzI1NiJ9.eyJuYW1lIjoibm8gcmVhbCBrZXkifQ.bm90IGEgcmVhbCBrZXksIG5vdCBhIHJlYWw",
        ] {
            let said = messages_of(&format!("unknown = 1\n{}", text.replace("CANARY", secret)));
            assert!(!said.contains(secret), "{text:?}: {said}");
        }
    }
}

/// Configuration with a secret in every place where operators write one by mistake.
const CANARIES: &str = "[listen]\naddress = \"127.0.0.1:1\"\n\n[credentials.main]\nkind = \"api-key\"\napi_key = \"canary_a=b\"\n\
    plan = \"teams\"\n\n[credentials]\nb = { kind = \"oauth\", client_id = \"x\", client_secret = { env = \"cal_canary0123456789abcdef0123456789abcdef\" } }\n\
    c = { api_key = 'canary', kind = \"api-key\", plan = \"teams\" }\n\n[token_store]\nseal_keys = [\n  \"canary==\",\n  { file = \"canary\" },\n]\n\
    path = \"/a\"\n\n[limit_store]\nredis = \"redis://u:canary@h\"\n\n[store]\npath = \"/a\"\n\
    postgres = { env = \"canary\" }\nredis = \"redis://u:canary@h\"\nseal_keys = [\n  \"canary==\",\n]\n\n[consumers.a]\nkeys = [\"calgate_canary\", { hash = \"canary\" }]\n\
    credential = \"main\"\n\n[consumers.b]\nkeys = \"\"\"\ncanary=\n  canary = \\\n canary\"\"\"\ncredential = \"main\"\n";

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn no_typing_error_shows_a_secret(slips in vec((0..CANARIES.len(), any::<bool>(), "[a=\"'#\\[\\]{},\n\\\\. ]"), 1..4)) {
        let mut text = CANARIES.to_owned();
        for (at, is_more, what) in slips {
            let at = at.min(text.len() - 1);
            if is_more {
                text.insert_str(at, &what);
            } else if !text.split_at(at).1.starts_with(|c: char| c.is_ascii_alphanumeric()) {
                text.remove(at);
            }
        }
        let said = messages_of(&text);
        prop_assert!(!said.contains("canary"), "{}", said);
    }
}

#[test]
fn a_message_shows_public_values() {
    for (text, shown) in [
        ("[limits]\nbody = \"soon\"", "body = \"soon\""),
        ("[listen]\nworkers = \"two\"", "workers = \"two\""),
        ("[listen]\ncors_origins = \"https://a\"", "cors_origins = \"https://a\""),
        ("[credentials.a]\nkind = \"apikey\"\nplan = \"teams\"", "kind = \"apikey\""),
        (
            "[credentials.a]\nkind = \"api-key\"\nplan = \"teams\"\napi_key = { env = \"CAL_API_KEY_X\" }",
            "variable CAL_API_KEY_X",
        ),
        (
            "[credentials.a]\nkind = \"api-key\"\nplan = \"teams\"\napi_key = { env = \"my_key\" }",
            "{ env = \"my_key\" }",
        ),
        (
            "[credentials.a]\nkind = \"api-key\"\nplan = \"teams\"\napi_key = { file = \"/run/x/cal_key\" }",
            "/run/x/cal_key cannot",
        ),
        ("[limit_store]\nredis = \"http://h:1/0\"", "redis = \"http://h:1/0\""),
        ("[limit_store]\nredis = \"redis://h\"\ntimeout = \"1ms\"", "`limit_store.timeout` is 1 ms"),
        ("[limit_store]\nredis = \"redis://h\"\ntimeout = \"2s\"", "write a time from \"5ms\" to \"500ms\""),
    ] {
        let said = messages_of(text);
        assert!(said.contains(shown), "{text:?}: {said}");
    }
}

#[test]
fn a_syntax_error_hides_neither_its_key_nor_any_other_mistake() {
    let documented = include_str!("../../config/calgate.toml");
    let mut section = "";
    for line in documented.lines().map(|line| line.trim_start_matches('#')).filter(|line| !line.starts_with(' ')) {
        if line.starts_with('[') {
            section = line;
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| section != "[budget]") {
            let text = format!(
                "[tiers.a]\nburst = \"b\"\n{section}\n{key} = \"cal_live_canary\n[budget]\nmode = \"loud\"\nmax_wiat = 1\n"
            );
            let error = Config::parse("calgate.toml", &text).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(said.contains(&format!("4 | {key} =")) && !said.contains("canary"), "{text}: {said}");
            for place in [
                ":2:9: `tiers.a.burst`",
                ":4:",
                ":6:8: `budget.mode` cannot be `loud`",
                ":7:1: unknown key `budget.max_wiat`",
            ] {
                assert!(error.lines().iter().any(|line| line.contains(place)), "{place}: {text}: {said}");
            }
        }
    }
}

#[test]
fn no_message_shows_invalid_toml() {
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
        "api_key = {\"not_a_real_key",
        "api_key = {\"not_a_real_key==\"",
        "api_key = {\n\"not_a_real_key",
        "api_key = { not_a_real_key = ",
        "api_key = { \"not_a_real_key\" = 1, ]",
        "api_key = [\n\"abc\",\n\"not_a_real_key\",",
        "api_key = \"abcd\nnot_a_real_key=\"",
        "api_key = \"abcd\nnot_a_real_key= x\ny\"",
        "api_key = \"abcd\nefgh=\"\nnot_a_real_key",
        "api_key = [ \"abcd\nQUJD=\", \"not_a_real_key\" ]",
        "[credentials.main\napi_key = \"not_a_real_key\"",
        "[credentials.\"not_a_real_key]",
        "api_key = \"a\"\napi_key = \"not_a_real_key\"",
        "api_key = { env = \"a\" } # x\n\u{1}not_a_real_key",
        "plan = \"teams # not_a_real_key",
    ] {
        for rest in ["", "\n", "\r\n", "\n\n  \n", "\nplan = \"teams\"\n"] {
            for before in ["", "[credentials.main]\nkind = \"api-key\"\n"] {
                let text = format!("{before}{line}{rest}");
                let said = messages_of(&text);
                assert!(!said.contains("not_a_real_key"), "{text:?}: {said}");
            }
        }
    }
}

#[test]
fn a_log_line_names_file_line_and_column() {
    let error = Config::parse("calgate.toml", "[listen]\n\n[tiers.premium]\nrequests_per_minute = 0\n").unwrap_err();
    let expected = "calgate.toml:4:23: `tiers.premium.requests_per_minute` must be a whole number from 1 to 1000000";
    assert_eq!(error.lines(), [expected]);
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let gone = Config::from_file(Path::new("tests/data/config/nowhere.toml"), Secrets::Read).unwrap_err().to_string();
    assert!(gone.contains("nowhere.toml") && gone.contains("cannot be read: No such file"), "{gone}");
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("binary.toml");
    fs::write(&binary, b"[listen]\naddress = \"\xff\"\n").unwrap();
    let binary = Config::from_file(&binary, Secrets::Read).unwrap_err().to_string();
    assert!(binary.contains("cannot be read") && binary.contains("UTF-8"), "{binary}");
}
