//! Tests of `calgate explain`, and of the same question to a running gateway.

use serde_json::{Value, json};

use super::serve::{run, text};
use crate::credential::rig::SEAL_KEY;
use crate::harness::{Key, Setup, Upstream};

const CONSUMER: &str = "[credentials.main]\nkind = \"api-key\"\napi_key = { env = \"CAL_TEST_KEY\" }\nplan = \"teams\"\n\
                        [consumers.billing]\ncredential = \"main\"\n";

fn explain(args: &[&str]) -> (Option<i32>, String) {
    explain_by(CONSUMER, args)
}

fn explain_by(config: &str, args: &[&str]) -> (Option<i32>, String) {
    let (_folder, file) = super::serve::config_file(config);
    let all: Vec<_> = ["explain", "--config", &file, "--consumer", "billing"].iter().chain(args).copied().collect();
    let output = run(&all, &[("CAL_TEST_KEY", "cal_test_0123456789abcdef"), ("SEAL_KEY", SEAL_KEY)]);
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn it_tells_the_decision_and_its_rule() {
    let (code, said) = explain(&["GET", "/v2/organizations/7/teams?x=1"]);
    assert_eq!(code, Some(1), "a denial");
    insta::assert_snapshot!(said, @r#"
    decision    deny
    code        GATEWAY_NOT_ENTITLED (403)
    rule        plan "teams" denies "Orgs" (the tag is "Orgs / Teams")
    endpoint    GET /v2/organizations/{orgId}/teams (tag "Orgs / Teams", prefix Orgs)
    consumer    billing
    credential  main
    plan        teams
    tier        standard
    budget      120 requests per window
    "#);
    let (_, said) = explain(&["--json", "GET", "/v2/me"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        said["endpoint"],
        json!({ "method": "GET", "template": "/v2/me", "tag": "Me", "prefix": "(unprefixed)" })
    );
    for (field, value) in [
        ("decision", "allow"),
        ("plan", "teams"),
        ("consumer", "billing"),
        ("credential", "main"),
        ("tier", "standard"),
    ] {
        assert_eq!(said[field], value);
    }
    assert_eq!(said["code"], Value::Null);
}

#[test]
fn the_budget_is_that_which_the_request_would_be_put_to() {
    let (_, said) = explain(&["POST", "/v2/bookings/uid/guests"]);
    assert_eq!(said.lines().last(), Some("budget      5 requests per window, for this operation alone"));
    let (_, said) = explain(&["--json", "POST", "/v2/bookings/uid/guests"]);
    let budget = &serde_json::from_str::<Value>(&said).unwrap()["budget"];
    assert_eq!((&budget["apart"], &budget["limit"]), (&true.into(), &5.into()));
}

#[test]
fn every_kind_of_refusal_is_foretold() {
    for (method, path, code) in [
        ("GET", "/v2/nothing", "GATEWAY_UNKNOWN_ENDPOINT"),
        ("PUT", "/v2/me", "GATEWAY_METHOD_NOT_ALLOWED"),
        ("TRACE", "/v2/me", "GATEWAY_METHOD_NOT_ALLOWED"),
        ("OPTIONS", "/v2/nothing", "GATEWAY_UNKNOWN_ENDPOINT"),
        ("GET", "/v2/../me", "GATEWAY_BAD_REQUEST"),
        ("POST", "/v2/api-keys/refresh", "GATEWAY_CREDENTIAL_OPERATION"),
    ] {
        let (_, said) = explain(&["--json", method, path]);
        assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["code"], code, "{method} {path}");
    }
}

#[test]
fn what_could_not_be_sent_is_foretold() {
    let config = format!("{CONSUMER}allow_credential_operations = [\"POST /v2/api-keys/refresh\"]\n");
    let (_, said) = explain_by(&config, &["--json", "POST", "/v2/api-keys/refresh"]);
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["code"], "GATEWAY_TOKENS_UNKEPT");
}

const PLATFORM: &str = "[token_store]\npath = \"/nonexistent/tokens.db\"\nseal_keys = [{ env = \"SEAL_KEY\" }]\n\
                        [credentials.main]\nkind = \"platform-client\"\nclient_id = \"c\"\nplan = \"unrestricted\"\n\
                        client_secret = { env = \"CAL_TEST_KEY\" }\nmanaged_users = true\n\
                        [consumers.billing]\ncredential = \"main\"\n";

#[test]
fn where_only_a_managed_user_has_what_an_operation_takes_it_says_so() {
    let (_, said) = explain_by(PLATFORM, &["GET", "/v2/bookings"]);
    insta::assert_snapshot!(said, @r#"
    decision    allow
    only with   x-calgate-managed-user
    rule        plan "unrestricted" allows the tag "Bookings"
    endpoint    GET /v2/bookings (tag "Bookings", prefix (unprefixed))
    consumer    billing
    credential  main
    plan        unrestricted
    tier        standard
    "#);
    for (users, args, expected) in [
        ("", &["GET", "/v2/me"][..], ["allow", "x-calgate-managed-user", "", ""]),
        ("", &["GET", "/v2/me", "--managed-user", "7"], ["allow", "", "", ""]),
        ("", &["GET", "/v2/oauth-clients/c/users"], ["allow", "", "", "500"]),
        ("", &["GET", "/v2/oauth-clients/c/users", "--managed-user", "7"], ["allow", "", "", "500"]),
        ("[7]", &["GET", "/v2/me"], ["allow", "x-calgate-managed-user", "", ""]),
        ("[7]", &["GET", "/v2/me", "--managed-user", "7"], ["allow", "", "", ""]),
        ("[7]", &["GET", "/v2/me", "--managed-user", "8"], ["deny", "", "GATEWAY_MANAGED_USER_NOT_ALLOWED", "500"]),
        ("[]", &["GET", "/v2/me"], ["deny", "", "GATEWAY_CREDENTIAL_UNSUITABLE", "500"]),
        ("[]", &["GET", "/v2/me", "--managed-user", "7"], ["deny", "", "GATEWAY_MANAGED_USER_NOT_ALLOWED", "500"]),
        ("[]", &["GET", "/v2/oauth-clients/c/users"], ["allow", "", "", "500"]),
        ("", &["GET", "/v2/me", "--managed-user", "me"], ["deny", "", "GATEWAY_BAD_REQUEST", "500"]),
        ("", &["GET", "/v2/me", "--managed-user", "a\nb"], ["deny", "", "GATEWAY_BAD_REQUEST", "500"]),
    ] {
        let narrowed = if users.is_empty() { String::new() } else { format!("managed_users = {users}\n") };
        let (_, said) = explain_by(&format!("{PLATFORM}{narrowed}"), &[&["--json"], args].concat());
        let said: Value = serde_json::from_str(&said).unwrap();
        let field = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned).replace("null", "");
        let told = [&said["decision"], &said["only_with"], &said["code"], &said["budget"]["limit"]].map(field);
        assert_eq!(told, expected, "{users} {args:?}");
    }
    let (_, said) = explain(&["--json", "GET", "/v2/me", "--managed-user", "7"]);
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["code"], "GATEWAY_BAD_REQUEST");
}

#[test]
fn what_the_gateway_answers_itself_is_no_refusal() {
    let (code, said) = explain(&["OPTIONS", "/v2/organizations/7/teams"]);
    assert!(said.starts_with("decision    allow\nrule        the gateway itself answers OPTIONS"), "{said}");
    assert!(code == Some(0) && said.contains("allow       GET, HEAD, OPTIONS, POST"), "{said}");
}

#[test]
fn an_unknown_consumer_is_an_error_that_names_the_known_ones() {
    let (_folder, file) = super::serve::config_file(CONSUMER);
    let output = run(
        &["explain", "--config", &file, "--consumer", "biling", "GET", "/v2/me"],
        &[("CAL_TEST_KEY", "cal_test_x")],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("did you mean `billing`?"), "{output:?}");
}

#[test]
fn the_running_gateway_answers_the_same_and_charges_nothing() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    let ask = |body: &Value| {
        let mut admin = crate::harness::RawConnection::connect(gateway.admin);
        admin.ask_with("POST /explain", &["Content-Type: application/json"], &body.to_string())
    };
    let answer = ask(&json!({ "consumer": "billing", "method": "GET", "path": "/v2/organizations/7/teams" }));
    assert_eq!(answer.status, 200);
    let answer = answer.json();
    assert_eq!((&answer["decision"], &answer["code"]), (&"deny".into(), &"GATEWAY_NOT_ENTITLED".into()));
    assert_eq!(answer["rule"], "plan \"teams\" denies \"Orgs\" (the tag is \"Orgs / Teams\")");
    assert_eq!(ask(&json!({ "consumer": "nobody", "method": "GET", "path": "/v2/me" })).status, 422);
    assert_eq!(ask(&json!({ "consumer": "billing" })).status, 422);
    ask(&json!({ "consumer": "billing", "method": "GET", "path": "/v2/me" }));
    let answer = ask(&json!({ "consumer": "billing", "method": "GET", "path": "/v2/me", "managed_user": "7" }));
    assert_eq!(answer.json()["code"], "GATEWAY_BAD_REQUEST");
    assert_eq!(upstream.requests().len(), 0);
}

/// Returns the exit code and the output of `explain` for these arguments, without a consumer.
fn explain_client(config: &str, args: &[&str]) -> (Option<i32>, String) {
    let (_folder, file) = super::serve::config_file(config);
    let output = run(&[&["explain", "--config", &file], args].concat(), &[]);
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn clients_without_a_gateway_key_can_be_asked_about_without_the_secrets() {
    let open = format!("{CONSUMER}[passthrough]\nenabled = true\nplan = \"organizations\"\ntier = \"elevated\"\n");
    let keyless = format!("{CONSUMER}[anonymous]\nconsumer = \"billing\"\n");
    for (config, args, code, expected) in [
        (
            CONSUMER,
            &["--anonymous", "GET", "/v2/slots"][..],
            0,
            &["consumer    (public)", "the operation is public"][..],
        ),
        (CONSUMER, &["--anonymous", "GET", "/v2/me"], 1, &["GATEWAY_UNAUTHENTICATED (401)"]),
        (&keyless, &["--anonymous", "GET", "/v2/me"], 0, &["consumer    billing", "plan        teams"]),
        (
            &open,
            &["--passthrough", "api-key", "GET", "/v2/me"],
            0,
            &["consumer    (passthrough)", "tier        elevated"],
        ),
        (&open, &["--passthrough", "token", "GET", "/v2/teams"], 1, &["plan \"organizations\" denies \"Teams\""]),
        (&open, &["--passthrough", "platform-client", "GET", "/v2/oauth-clients/c/users"], 0, &["(passthrough)"]),
        (CONSUMER, &["--passthrough", "api-key", "GET", "/v2/me"], 1, &["GATEWAY_UNAUTHENTICATED (401)"]),
        (CONSUMER, &["--consumer", "billing", "PUT", "/v2/me"], 1, &["allow       GET, HEAD, OPTIONS, PATCH"]),
        (CONSUMER, &["--passthrough", "apikey", "GET", "/v2/me"], 2, &["did you mean `api-key`?"]),
        (CONSUMER, &["GET", "/v2/me"], 2, &["--consumer"]),
        (CONSUMER, &["--anonymous", "--consumer", "billing", "GET", "/v2/me"], 2, &["cannot be used with"]),
    ] {
        let (exit, said) = explain_client(config, &[&["--without-secrets"], args].concat());
        assert_eq!(exit, Some(code), "{args:?}: {said}");
        assert!(expected.iter().all(|expected| said.contains(expected)), "{args:?}: {said}");
    }
}
