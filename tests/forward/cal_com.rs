//! Forwarding to a simulated Cal.com, which checks credentials, versions and paths by its own rules.

use std::io::Write as _;

use calgate::catalog::Catalog;

use crate::cal_sim::Sim;
use crate::cal_sim::options::{DEMO_API_KEY, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Options};
use crate::harness::{Gateway, Key, Setup};

const PLATFORM: &str = "[budget]\nmode = \"off\"\n[tiers.roomy]\nrequests_per_minute = 100000\n\
    [credentials.platform]\nkind = \"platform-client\"\nclient_id = \"CLIENT\"\n\
    client_secret = { env = \"CAL_SECRET\" }\napi_key = { env = \"CAL_KEY\" }\nplan = \"unrestricted\"\n\
    [consumers.app]\nkeys = [\"HASH\"]\ncredential = \"platform\"\ntier = \"roomy\"\n";

fn unlimited() -> Options {
    let mut options = Options::default();
    options.limits.api_key.clear();
    options.limits.other.clear();
    options
}

fn over_tls() -> Sim {
    Sim::start(Options { tls: true, ..unlimited() }).unwrap()
}

fn setup(sim: &Sim, upstream: &str, key: &Key) -> Setup {
    Setup::to(&sim.base_url())
        .with(upstream)
        .with(&PLATFORM.replace("CLIENT", DEMO_CLIENT_ID).replace("HASH", &key.hash))
        .env("CAL_SECRET", DEMO_CLIENT_SECRET)
        .env("CAL_KEY", DEMO_API_KEY)
}

/// A gateway that trusts the simulation's authority.
fn trusting(sim: &Sim, upstream: &str, key: &Key) -> (Gateway, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(sim.ca_pem().unwrap().as_bytes()).unwrap();
    let upstream = format!("ca_file = \"{}\"\n{upstream}", file.path().display());
    (setup(sim, &upstream, key).start(), file)
}

#[test]
fn every_operation_gets_an_accepted_credential_and_the_pinned_version() {
    let (sim, key) = (Sim::start(unlimited()).unwrap(), Key::new());
    let gateway = setup(&sim, "pin_api_version = true", &key).start();
    let mut connection = gateway.connect();
    let operations = Catalog::built_in().endpoints().iter().filter(|endpoint| !endpoint.credential_operation);
    let mut asked = 0;
    for endpoint in operations.filter(|endpoint| endpoint.tag.as_str() != "OAuth2") {
        let template = endpoint.template.as_str();
        let filled = |part| match part {
            "{clientId}" => DEMO_CLIENT_ID,
            part if str::starts_with(part, '{') => "7",
            literal => literal,
        };
        let path: Vec<_> = template.split('/').map(filled).collect();
        let answer =
            connection.ask(&format!("{} {}", endpoint.method, path.join("/")), &[&format!("X-Api-Key: {}", key.text)]);
        assert!(answer.status < 300, "{endpoint}: {} {}", answer.head, answer.text());
        asked += 1;
    }
    assert!(asked > 250, "{asked}");
    assert_eq!(sim.seen_count(), asked);
}

#[test]
fn https_uses_http2_or_http1_if_http2_is_switched_off() {
    for (upstream, version) in [("", "HTTP/2.0"), ("http2 = false", "HTTP/1.1")] {
        let (sim, key) = (over_tls(), Key::new());
        let (gateway, _ca) = trusting(&sim, upstream, &key);
        let own = format!("X-Api-Key: {}", key.text);
        let mut connection = gateway.connect();
        for _ in 0..5 {
            assert_eq!(connection.ask("GET /v2/me", &[&own]).status, 200);
        }
        let large = connection.ask("GET /v2/me?sim_body=1000000", &[&own]);
        assert_eq!((large.status, large.body.len()), (200, 1_000_000));
        let body = format!("{{\"x\":\"{}\"}}", "y".repeat(90_000));
        let posted = connection.ask_with("POST /v2/bookings", &[&own, "Content-Type: application/json"], &body);
        assert_eq!(posted.status, 200, "{}", posted.text());
        let seen = sim.seen();
        assert!(seen.iter().all(|request| request.version == version), "{seen:?}");
        assert_eq!(seen.last().unwrap().body_length, body.len() as u64);
        assert_eq!(gateway.ask("HEAD /v2/me", &[&own]).status, 200);
    }
}

#[test]
fn a_certificate_that_cannot_be_verified_is_never_accepted() {
    let (sim, key) = (over_tls(), Key::new());
    let own = format!("X-Api-Key: {}", key.text);
    let strangers = over_tls();
    let mut wrong = tempfile::NamedTempFile::new().unwrap();
    wrong.write_all(strangers.ca_pem().unwrap().as_bytes()).unwrap();
    for upstream in [String::new(), format!("ca_file = \"{}\"", wrong.path().display())] {
        let gateway = setup(&sim, &upstream, &key).start();
        let answer = gateway.ask("GET /v2/me", &[&own]);
        assert_eq!((answer.status, answer.code()), (502, Some("GATEWAY_UPSTREAM_UNREACHABLE")));
        let line = &gateway.access_log(1)[0];
        assert!(line["detail"].as_str().unwrap().contains("TLS failed"), "{line}");
    }
    assert_eq!(sim.seen_count(), 0);
}
