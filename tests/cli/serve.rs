//! Tests of `calgate serve` and `calgate health`, and of options that all commands share.

use std::process::{Command, Output, Stdio};

use crate::harness::{Key, Setup, Upstream, eventually};

/// Runs a command with only these of the variables that calgate reads.
pub fn run(args: &[&str], environment: &[(&str, &str)]) -> Output {
    command(args, environment).output().expect("calgate runs")
}

/// Returns a command with only these of the variables that calgate reads.
pub fn command(args: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_calgate"));
    for variable in ["CALGATE_CONFIG", "CAL_API_KEY", "CAL_PLAN", "CAL_TIER", "CAL_API_URL", "CALGATE_ADMIN"] {
        command.env_remove(variable);
    }
    command.args(args).envs(environment.iter().copied());
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Creates a configuration file in a folder of its own.
pub fn config_file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("calgate.toml");
    std::fs::write(&file, text).unwrap();
    (folder, file.to_str().unwrap().to_owned())
}

#[test]
fn an_address_in_use_is_an_error_that_says_so() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    let free = "127.0.0.1:0";
    let folder = tempfile::tempdir().unwrap();
    let file_there = folder.path().join("taken");
    std::fs::write(&file_there, "").unwrap();
    let socket = format!("unix:{}", file_there.display());
    for (address, admin, said) in [
        (&*gateway.address, "off", "another program uses it: change listen.address"),
        (free, &*gateway.admin.to_string(), "another program uses it: change listen.admin"),
        (&*socket, "off", "not a socket: change listen.address or remove the file"),
    ] {
        let (_folder, file) = config_file(&format!("[listen]\naddress = \"{address}\"\nadmin = \"{admin}\"\n"));
        let output = run(&["serve", "--config", &file], &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(said), "{output:?}");
    }
}

#[test]
fn a_wrong_configuration_is_not_served() {
    let (_folder, file) = config_file("[listen]\nworkers = 0\n");
    let output = run(&["serve", "--config", &file], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("listen.workers"), "{output:?}");
}

#[test]
fn a_command_line_that_means_nothing_exits_with_2() {
    for args in [&["srve"][..], &[], &["explain", "GET"]] {
        assert_eq!(run(args, &[]).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn health_tells_a_running_gateway_from_none() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    let admin = gateway.admin.to_string();
    // 0.0.0.0 is an address to listen on. A client must not use it as the host.
    for admin in [&admin, &format!("0.0.0.0:{}", gateway.admin.port())] {
        let output = run(&["health", "--admin", admin], &[]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    drop(gateway);
    let output = run(&["health", "--admin", &admin], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("unhealthy"), "{output:?}");
}

#[test]
fn health_asks_an_admin_listener_that_is_a_socket_file() {
    let folder = tempfile::tempdir().unwrap();
    let admin = format!("unix:{}", folder.path().join("admin").display());
    let health = || run(&["health"], &[("CALGATE_ADMIN", &admin)]).status.code();
    assert_eq!(health(), Some(1));
    let (_folder, file) = config_file(&format!("[listen]\naddress = \"127.0.0.1:0\"\nadmin = \"{admin}\"\n"));
    let mut serve = command(&["serve", "--config", &file], &[]).stderr(Stdio::null()).spawn().unwrap();
    eventually("a healthy gateway", || (health() == Some(0)).then_some(()));
    serve.kill().unwrap();
    serve.wait().unwrap();
}

#[test]
fn the_environment_alone_makes_a_gateway_for_one_app() {
    let explain = |environment: &[(&str, &str)], path: &str| {
        let output = run(&["explain", "--consumer", "app", "GET", path], environment);
        text(&output.stdout) + &text(&output.stderr)
    };
    let key = ("CAL_API_KEY", "cal_test_0123456789abcdef");
    assert!(explain(&[key], "/v2/teams/1").contains("decision    allow"));
    let said = explain(&[key, ("CAL_PLAN", "organizations"), ("CAL_TIER", "premium")], "/v2/teams/1");
    assert!(said.contains("decision    deny") && said.contains("tier        premium"), "{said}");
    assert!(explain(&[key, ("CAL_PLAN", "team")], "/v2/me").contains("did you mean `teams`?"));
    assert!(explain(&[key, ("CAL_API_URL", "http://example.com")], "/v2/me").contains("loopback"));
}
