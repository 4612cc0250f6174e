//! OAuth grants: login, renewal in time, and that no caller receives them.

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::rig::{OTHER_SEAL_KEY, Rig, living};
use crate::cal_sim::Seen;
use crate::cal_sim::options::TokenRules;
use crate::harness::{RawConnection, eventually};

/// Returns the address in a line of output from `calgate login`.
fn address(line: &str) -> Option<String> {
    line.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned)
}

/// Opens the page as a browser does, and returns the address to which the page redirects.
fn granted(rig: &Rig, address: &str) -> String {
    let target = address.split_once(&rig.sim.address().to_string()).unwrap().1;
    RawConnection::connect(rig.sim.address()).ask(&format!("GET {target}"), &[]).header("location").unwrap().to_owned()
}

#[test]
fn a_login_receives_the_browsers_redirect_and_stores_the_grant() {
    let rig = Rig::new(TokenRules::default());
    let gateway = rig.start();
    let before = gateway.ask("GET /v2/me", &[]);
    assert_eq!((before.status, before.code()), (503, Some("GATEWAY_CREDENTIAL_NEEDS_LOGIN")));
    assert!(gateway.ask_admin("GET /readyz", &[]).text().contains("credential app: needs-login"));
    assert_eq!(gateway.metric("calgate_credentials", "credential=\"app\",state=\"needs-login\""), 1);

    let file = rig.folder.path().join("login.toml");
    std::fs::write(&file, rig.setup().text()).unwrap();
    let mut login = Command::new(env!("CARGO_BIN_EXE_calgate"))
        .args(["login", "app", "--port", "0", "--config", file.to_str().unwrap()])
        .envs([("SEAL_KEY", super::rig::SEAL_KEY), ("CLIENT_SECRET", "x")])
        .env("OAUTH_SECRET", crate::cal_sim::options::DEMO_OAUTH_SECRET)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(login.stdout.take().unwrap()).lines().map_while(Result::ok);
    let page = lines.find_map(|line| address(&line)).unwrap();
    assert!(!page.contains("code_challenge") && page.contains("state="), "{page}");
    let back = granted(&rig, &page);
    let (host, target) = back.strip_prefix("http://").unwrap().split_at(back.find("/callback").unwrap() - 7);
    let forged = target.replace("state=", "state=x");
    let mut browser = RawConnection::connect(host.parse().unwrap());
    assert_eq!(browser.ask("GET /favicon.ico", &[]).status, 404);
    // A callback without the state of this login does not end it.
    for strange in [&*forged, "/callback?error=access_denied", "/callback"] {
        assert_eq!(
            RawConnection::connect(host.parse().unwrap()).ask(&format!("GET {strange}"), &[]).status,
            400,
            "{strange}"
        );
    }
    let other = RawConnection::connect(host.parse().unwrap()).ask(&format!("GET {target}"), &[]);
    assert_eq!(other.status, 200, "{target}");
    assert!(login.wait().unwrap().success());
    assert_eq!(rig.sim.token_counts().code_exchanges, 1);

    eventually("the grant in use", || (gateway.ask("GET /v2/me", &[]).status == 200).then_some(()));
    assert_eq!(gateway.ask_admin("GET /readyz", &[]).text(), "ready\n");
    assert_eq!(rig.state("app"), "fresh");
}

#[test]
fn a_login_keeps_the_first_answer_of_the_browser() {
    let rig = Rig::new(TokenRules::default());
    let file = rig.folder.path().join("login.toml");
    std::fs::write(&file, rig.setup().text()).unwrap();
    let mut login = Command::new(env!("CARGO_BIN_EXE_calgate"))
        .args(["login", "app", "--port", "0", "--config", file.to_str().unwrap()])
        .envs([("SEAL_KEY", super::rig::SEAL_KEY), ("CLIENT_SECRET", "x")])
        .env("OAUTH_SECRET", crate::cal_sim::options::DEMO_OAUTH_SECRET)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(login.stdout.take().unwrap()).lines().map_while(Result::ok);
    let page = lines.find_map(|line| address(&line)).unwrap();
    let back = granted(&rig, &page);
    let (host, target) = back.strip_prefix("http://").unwrap().split_at(back.find("/callback").unwrap() - 7);
    let later = target.replace("code=", "code=x");
    // The login accepts this connection before the first answer, and keeps it open.
    let mut other = RawConnection::connect(host.parse().unwrap());
    other.send("GET ");
    assert_eq!(RawConnection::connect(host.parse().unwrap()).ask(&format!("GET {target}"), &[]).status, 200);
    other.send(format!("{later} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert_eq!(other.read_response().status, 409);
    assert!(login.wait().unwrap().success());
    assert_eq!(rig.sim.token_counts().code_exchanges, 1);
}

/// Runs a login with a pasted code, and returns its output.
fn pasted(rig: &Rig, credential: &str) -> std::process::Output {
    let file = rig.folder.path().join("paste.toml");
    std::fs::write(&file, rig.setup().text()).unwrap();
    let mut login = Command::new(env!("CARGO_BIN_EXE_calgate"))
        .args(["login", credential, "--code", "--config", file.to_str().unwrap()])
        .envs([("SEAL_KEY", super::rig::SEAL_KEY), ("CLIENT_SECRET", "x")])
        .env("OAUTH_SECRET", crate::cal_sim::options::DEMO_OAUTH_SECRET)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(login.stdout.take().unwrap()).lines().map_while(Result::ok);
    let page = lines.find_map(|line| address(&line)).unwrap();
    let back = granted(rig, &page);
    writeln!(login.stdin.take().unwrap(), "{back}").unwrap();
    let rest: Vec<_> = lines.collect();
    let mut output = login.wait_with_output().unwrap();
    output.stdout = [page, rest.join("\n")].join("\n").into_bytes();
    output
}

#[test]
fn pkce_depends_on_the_secret_unless_the_operator_sets_it() {
    let public = format!(
        "[credentials.public]\nkind = \"oauth\"\nclient_id = \"{}\"\nplan = \"teams\"\n",
        crate::cal_sim::options::DEMO_PUBLIC_CLIENT_ID
    );
    for (pkce, has_challenge, works) in [("", true, true), ("pkce = \"always\"\n", true, true)] {
        let mut rig = Rig::new(TokenRules::default());
        let authorize = format!("authorize_url = \"{}/auth/oauth2/authorize\"\n", rig.sim.base_url());
        rig.platform = format!("{public}{authorize}{pkce}").leak();
        let output = pasted(&rig, "public");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!((said.contains("code_challenge="), output.status.success()), (has_challenge, works), "{said}");
    }
    // The client has a secret, so Cal.com refuses the verifier. The message of calgate quotes Cal.com.
    for (pkce, works) in [("pkce = \"auto\"", true), ("pkce = \"never\"", true), ("pkce = \"always\"", false)] {
        let mut rig = Rig::new(TokenRules::default());
        rig.app = pkce;
        let output = pasted(&rig, "app");
        let (out, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!((out.contains("code_challenge="), output.status.success()), (!works, works), "{out}{said}");
        assert_eq!(said.contains("\"property code_verifier should not exist\""), !works, "{said}");
    }
}

#[test]
fn a_login_accepts_a_pasted_address_and_rejects_an_answer_to_another_login() {
    let rig = Rig::new(TokenRules::default());
    let said = rig.refused(&["login", "app", "--code"], "http://127.0.0.1:8976/callback?code=x&state=forged\n");
    assert!(said.contains("its state differs"), "{said}");
    let said = rig.refused(&["login", "app", "--code"], "no-such-code\n");
    assert!(said.contains("invalid_grant"), "{said}");
    let said = rig.refused(&["login", "platform", "--code"], "x\n");
    assert!(said.contains("not of kind \"oauth\""), "{said}");
    let said = rig.refused(&["login", "ap", "--code"], "x\n");
    assert!(said.contains("did you mean `app`?"), "{said}");
}

#[test]
fn a_login_starts_only_if_its_tokens_can_be_stored() {
    let mut rig = Rig::new(TokenRules::default());
    let refused = |rig: &Rig| {
        let output = rig.run(&["login", "app", "--code"], "x\n");
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let store = rig.folder.path().join("store");
    std::fs::create_dir(&store).unwrap();
    std::fs::set_permissions(&store, Permissions::from_mode(0o755)).unwrap();
    assert!(refused(&rig).contains("chmod 700 it"));
    std::fs::set_permissions(&store, Permissions::from_mode(0o700)).unwrap();
    rig.import_app();
    rig.environment.push(("SEAL_KEY".to_owned(), OTHER_SEAL_KEY.to_owned()));
    assert!(refused(&rig).contains("add that key"));
    assert_eq!(rig.sim.token_counts().code_exchanges, 0);
}

#[test]
fn a_grant_is_renewed_before_it_expires_without_callers_noticing() {
    for leave_out_expires_in in [false, true] {
        let rig = Rig::new(TokenRules { leave_out_expires_in, ..living(4) });
        let first = rig.import_app();
        let gateway = rig.start();
        let mut connection = gateway.connect();
        eventually("three renewals", || {
            let answer = connection.ask("GET /v2/me", &[]);
            assert_eq!(answer.status, 200, "{}", answer.text());
            (rig.sim.token_counts().oauth_refreshes >= 3).then_some(())
        });
        let used: std::collections::BTreeSet<_> =
            rig.sim.seen().iter().filter_map(|seen| seen.header("authorization").map(str::to_owned)).collect();
        assert!(used.contains(&format!("Bearer {}", first.access)) && used.len() >= 3);
        assert_eq!(rig.sim.token_counts().refused, 0);
    }
}

#[test]
fn one_renewal_serves_any_number_of_callers_and_replicas() {
    let rig = Rig::new(living(3600));
    rig.import_app();
    let replicas: Vec<_> = (0..3).map(|_| rig.start()).collect();
    for gateway in &replicas {
        assert_eq!(gateway.ask("GET /v2/me", &[]).status, 200);
    }
    // The tokens have expired at Cal.com, and no replica knows it.
    rig.sim.advance(Duration::from_secs(3601));
    std::thread::scope(|scope| {
        let ask = |gateway| move || crate::harness::Gateway::ask(gateway, "GET /v2/me", &[]).status;
        let all: Vec<_> = (0..120).map(|n| scope.spawn(ask(&replicas[n % 3]))).collect();
        for answer in all {
            assert_eq!(answer.join().unwrap(), 200);
        }
    });
    assert_eq!(rig.sim.token_counts().oauth_refreshes, 1);
}

#[test]
fn a_renewal_counts_in_the_budget_of_calls_without_a_credential() {
    let rig = Rig { budget: "", ..Rig::new(living(4)) };
    rig.import_app();
    let gateway = rig.start();
    eventually("a renewal", || (rig.sim.token_counts().oauth_refreshes > 0).then_some(()));
    let used = || gateway.metric("calgate_budget_used", "credential=\"(public)\"");
    eventually("its place in the budget", || (used() > 0).then_some(()));
}

#[test]
fn a_login_after_a_forget_ignores_earlier_rejections() {
    let rig = Rig::new(TokenRules::default());
    for _ in 0..4 {
        rig.import_app();
    }
    let gateway = rig.start();
    let token = || {
        assert_eq!(gateway.ask("GET /v2/me", &[]).status, 200);
        let bearer = |seen: &Seen| seen.header("authorization").map(str::to_owned);
        rig.sim.seen().iter().rev().find_map(bearer).unwrap()
    };
    // Cal.com refuses the token of generation 4 and accepts that of generation 5.
    rig.sim.revoke(&token()["Bearer ".len()..]);
    token();
    assert_eq!(rig.sim.token_counts().oauth_refreshes, 1);
    rig.ran(&["credentials", "forget", "app"], "");
    let login = format!("Bearer {}", rig.import_app().access);
    eventually("the new grant in use", || (token() == login).then_some(()));
    // calgate also renews the new grant after a rejection.
    rig.sim.revoke(&login["Bearer ".len()..]);
    assert_ne!(token(), login);
    assert_eq!(rig.sim.token_counts().oauth_refreshes, 2);
    assert_eq!(gateway.metric("calgate_credentials", "credential=\"app\",state=\"fresh\""), 1);
}
