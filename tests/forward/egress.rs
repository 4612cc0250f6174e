//! Egress: through an HTTP proxy, and with other certificate authorities than the public ones.

use std::io::Write as _;
use std::process::{Command, Stdio};

use calgate::config::proxy::{Proxy, from_environment};
use calgate::config::upstream::BaseUrl;

use crate::cal_sim::Sim;
use crate::cal_sim::certificates::NAME;
use crate::cal_sim::options::{DEMO_API_KEY, DEMO_OAUTH_SECRET, Options};
use crate::credential::rig::{Rig, SEAL_KEY};
use crate::harness::{ConnectProxy, Gateway, Key, Setup};

fn over_tls() -> Sim {
    Sim::start(Options { tls: true, ..Options::default() }).unwrap()
}

/// Cal.com by a name that only a proxy can reach.
fn by_name(sim: &Sim) -> String {
    format!("https://{NAME}:{}", sim.address().port())
}

fn authority(sim: &Sim) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(sim.ca_pem().unwrap().as_bytes()).unwrap();
    file
}

fn setup(base_url: &str, upstream: &str, key: &Key) -> Setup {
    // What this machine's own environment says is none of the tests' concern.
    let setup = ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE"]
        .into_iter()
        .fold(Setup::to(base_url), |setup, name| setup.env(name, ""));
    setup.with(upstream).billing("teams", key).env("CAL_TEST_KEY", DEMO_API_KEY)
}

fn get(gateway: &Gateway, key: &Key) -> (u16, Option<String>) {
    let answer = gateway.ask("GET /v2/me", &[&format!("X-Api-Key: {}", key.text)]);
    (answer.status, answer.code().map(str::to_owned))
}

const UNREACHABLE: &str = "GATEWAY_UPSTREAM_UNREACHABLE";

#[test]
fn requests_go_through_a_proxy_whose_password_is_a_secret() {
    let (sim, key) = (over_tls(), Key::new());
    let (proxy, ca) = (ConnectProxy::to(sim.address()), authority(&sim));
    let upstream = format!("ca_file = \"{}\"\nproxy = {{ env = \"PROXY\" }}", ca.path().display());
    let gateway = setup(&by_name(&sim), &upstream, &key)
        .env("PROXY", &format!("http://calgate:canary%40word@{}", proxy.address()))
        .start();
    assert_eq!(get(&gateway, &key).0, 200);
    let asked = proxy.requests().remove(0);
    assert!(asked.starts_with(&format!("CONNECT {NAME}:{} HTTP/1.1\r\n", sim.address().port())), "{asked}");
    // calgate:canary@word
    assert!(asked.to_lowercase().contains("\r\nproxy-authorization: basic y2fsz2f0ztpjyw5hcnlad29yza=="), "{asked}");
    assert_eq!(sim.seen_count(), 1);
    assert!(!format!("{:?} {:?}", sim.seen(), gateway.log()).contains("canary"));
}

#[test]
fn a_proxy_that_refuses_is_named_with_its_status_and_not_with_its_password() {
    let (sim, key) = (over_tls(), Key::new());
    for (status, remedy) in [("407 Proxy Authentication Required", "user and password"), ("403 Forbidden", "allow")] {
        let proxy = ConnectProxy::answering(sim.address(), status);
        let gateway = setup(&by_name(&sim), "proxy = { env = \"PROXY\" }", &key)
            .env("PROXY", &format!("http://calgate:canary@{}", proxy.address()))
            .start();
        assert_eq!(get(&gateway, &key), (502, Some(UNREACHABLE.to_owned())));
        let line = gateway.access_log(1).remove(0);
        let detail = line["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("the proxy {}", proxy.address())), "{detail}");
        assert!(detail.contains(&status[..3]) && detail.contains(remedy), "{detail}");
        assert!(!format!("{line} {:?}", gateway.log()).contains("canary"));
    }
    assert_eq!(sim.seen_count(), 0);
}

#[test]
fn the_environment_names_a_proxy_and_exempts_hosts_from_it() {
    let (sim, key) = (over_tls(), Key::new());
    let (proxy, ca) = (ConnectProxy::to(sim.address()), authority(&sim));
    let ca_file = format!("ca_file = \"{}\"", ca.path().display());
    let url = proxy.address().to_string();
    for name in ["HTTPS_PROXY", "https_proxy"] {
        let gateway = setup(&by_name(&sim), &ca_file, &key).env(name, &url).start();
        assert_eq!(get(&gateway, &key).0, 200, "{name}");
    }
    assert_eq!(proxy.requests().len(), 2);
    // A loopback address is reached without one, and what is exempt, too, which here leads nowhere.
    let gateway = setup(&sim.base_url(), &ca_file, &key).env("HTTPS_PROXY", &url).start();
    assert_eq!(get(&gateway, &key).0, 200);
    let exempt = setup(&by_name(&sim), &ca_file, &key).env("HTTPS_PROXY", &url).env("NO_PROXY", "x,.test").start();
    assert_eq!(get(&exempt, &key).0, 502);
    let direct = setup(&by_name(&sim), &format!("{ca_file}\nproxy = \"none\""), &key).env("HTTPS_PROXY", &url).start();
    assert_eq!(get(&direct, &key).0, 502);
    assert_eq!(proxy.requests().len(), 2);
}

#[test]
fn token_requests_go_through_the_proxy() {
    let sim = over_tls();
    let (proxy, ca) = (ConnectProxy::to(sim.address()), authority(&sim));
    let (base_url, rig) = (by_name(&sim), Rig::at(sim));
    let file = rig.folder.path().join("login.toml");
    let upstream = format!(
        "[upstream]\nbase_url = \"{base_url}\"\nca_file = \"{}\"\nproxy = \"http://{}\"\n",
        ca.path().display(),
        proxy.address()
    );
    std::fs::write(&file, upstream + &rig.config()).unwrap();
    let mut login = Command::new(env!("CARGO_BIN_EXE_calgate"))
        .args(["login", "app", "--code", "--config", file.to_str().unwrap()])
        .envs([("SEAL_KEY", SEAL_KEY), ("CLIENT_SECRET", "x"), ("OAUTH_SECRET", DEMO_OAUTH_SECRET)])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    login.stdin.take().unwrap().write_all(b"no-such-code\n").unwrap();
    let said = String::from_utf8(login.wait_with_output().unwrap().stderr).unwrap();
    assert!(said.contains("cannot exchange the code"), "{said}");
    assert_eq!((proxy.requests().len(), rig.sim.seen_count()), (1, 1));
}

#[test]
fn a_proxy_is_read_from_a_url_and_hosts_are_exempt_by_name_domain_and_network() {
    let address = |text: &str| Proxy::parse(text).map(|proxy| (proxy.address(), proxy.authorization().is_some()));
    for (text, read) in [
        ("http://proxy.internal:3128", ("proxy.internal:3128", false)),
        ("proxy.internal:3128", ("proxy.internal:3128", false)),
        ("http://proxy.internal", ("proxy.internal:80", false)),
        ("http://me:secret@proxy.internal:3128/", ("proxy.internal:3128", true)),
        ("http://[::1]:3128", ("[::1]:3128", false)),
    ] {
        assert_eq!(address(text), Ok((read.0.to_owned(), read.1)), "{text}");
    }
    for text in ["https://proxy:3128", "socks5://proxy:1080", "", "http://", "no proxy"] {
        assert!(address(text).is_err(), "{text}");
    }
    let upstream = BaseUrl::parse("https://api.cal.com").unwrap();
    let proxied = |no_proxy: &str| {
        let variable = |name: &str| match name {
            "HTTPS_PROXY" => Some("http://proxy:1".to_owned()),
            "NO_PROXY" => Some(no_proxy.to_owned()),
            _ => None,
        };
        from_environment(&upstream, variable).unwrap().is_some()
    };
    for no_proxy in ["", "cal.org", "api.cal.com.example", "i.cal.com", "10.0.0.0/8"] {
        assert!(proxied(no_proxy), "{no_proxy}");
    }
    for no_proxy in ["*", "cal.com", ".cal.com", "a.example, api.cal.com"] {
        assert!(!proxied(no_proxy), "{no_proxy}");
    }
}

#[test]
fn ssl_cert_file_is_trusted_unless_the_configuration_excludes_it() {
    let (sim, strangers, key) = (over_tls(), over_tls(), Key::new());
    let (ca, other) = (authority(&sim), authority(&strangers));
    let of = |file: &tempfile::NamedTempFile| file.path().display().to_string();
    for (upstream, status) in [
        (String::new(), 200),
        ("roots = \"system\"".to_owned(), 200),
        ("roots = \"both\"".to_owned(), 200),
        ("roots = \"bundled\"".to_owned(), 502),
        (format!("ca_file = \"{}\"", of(&other)), 502),
    ] {
        let gateway = setup(&sim.base_url(), &upstream, &key).env("SSL_CERT_FILE", &of(&ca)).start();
        assert_eq!(get(&gateway, &key).0, status, "{upstream}");
        if status == 502 {
            let line = gateway.access_log(1).remove(0);
            let detail = line["detail"].as_str().unwrap();
            assert!(detail.contains("upstream.ca_file") && detail.contains("upstream.roots"), "{detail}");
        }
    }
}
