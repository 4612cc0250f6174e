//! Tests of `cal-api-version`: Cal.com gets the value that the client sends.

use calgate::catalog::Catalog;

use crate::cal_sim::options::{DEMO_API_KEY, Options};
use crate::cal_sim::{Seen, Sim};
use crate::harness::{Gateway, Key, Setup, Upstream};

fn sim() -> Sim {
    let mut options = Options::default();
    options.limits.api_key.clear();
    options.limits.other.clear();
    Sim::start(options).unwrap()
}

/// Sets up a gateway whose consumer has the API key of the simulation.
fn before(sim: &Sim, upstream: &str, key: &Key) -> Gateway {
    Setup::to(&sim.base_url()).with(upstream).billing("unrestricted", key).env("CAL_TEST_KEY", DEMO_API_KEY).start()
}

fn version(seen: &Seen) -> Option<String> {
    seen.header("cal-api-version").map(str::to_owned)
}

#[test]
fn neither_adds_nor_changes_a_version() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("unrestricted", &key).start();
    let own = format!("Authorization: Bearer {}", key.text);
    let sent = ["", "2024-04-15", "2024-08-13", "2026-02-25", "2026-05-01", "2026-06-12", "2031-01-01"];
    let mut connection = gateway.connect();
    for version in sent {
        let header = format!("cal-api-version: {version}");
        let headers: &[&str] = if version.is_empty() { &[&own] } else { &[&own, &header] };
        assert_eq!(connection.ask("GET /v2/bookings", headers).status, 200, "{version}");
    }
    for endpoint in Catalog::built_in().endpoints().iter().filter(|endpoint| endpoint.api_version.is_some()) {
        let path = endpoint.template.as_str().replace(['{', '}'], "");
        assert_eq!(connection.ask(&format!("{} {path}", endpoint.method), &[&own]).status, 200, "{endpoint}");
    }
    let arrived: Vec<_> = upstream.requests().iter().map(|asked| asked.headers("cal-api-version").join("|")).collect();
    assert_eq!(arrived[..sent.len()], sent);
    assert!(arrived.len() > sent.len() + 30 && arrived[sent.len()..].iter().all(String::is_empty), "{arrived:?}");
}

#[test]
fn adds_a_pinned_version_only_if_the_client_sends_none() {
    let (sim, key) = (sim(), Key::new());
    let own = format!("X-Api-Key: {}", key.text);
    let gateway = before(&sim, "pin_api_version = true", &key);
    let ask = |request: &str, more: &[&str]| {
        sim.forget();
        let status = gateway.ask(request, &[&[own.as_str()], more].concat()).status;
        (status, version(&sim.seen()[0]))
    };
    let pinned = |text: &str| Some(text.to_owned());
    assert_eq!(ask("GET /v2/slots", &[]), (200, pinned("2024-09-04")));
    assert_eq!(ask("GET /v2/bookings", &[]), (200, pinned("2024-08-13")));
    assert_eq!(ask("GET /v2/bookings", &["cal-api-version: 2024-04-15"]), (200, pinned("2024-04-15")));
    assert_eq!(ask("GET /v2/slots", &["cal-api-version: 2024-04-15"]), (404, pinned("2024-04-15")));
    assert_eq!(ask("GET /v2/me", &[]), (200, None));
    // A reload applies the setting.
    gateway.reload(|text| text.replace("pin_api_version = true", "pin_api_version = false"));
    assert_eq!(ask("GET /v2/bookings", &[]), (200, None));
    assert_eq!(ask("GET /v2/slots", &[]), (404, None));
}

#[test]
fn hints_at_the_versions_of_an_operation_after_a_404() {
    let (sim, key) = (sim(), Key::new());
    let gateway = before(&sim, "", &key);
    let own = format!("X-Api-Key: {}", key.text);
    let hint = |request: &str, more: &[&str]| {
        let answer = gateway.ask(request, &[&[own.as_str()], more].concat());
        assert_eq!(answer.code(), None, "{request}");
        (answer.status, answer.header("x-calgate-hint").map(str::to_owned))
    };
    let (status, without) = hint("GET /v2/slots", &[]);
    let without = without.unwrap();
    assert!(status == 404 && without.contains("cal-api-version 2024-09-04 for GET /v2/slots"), "{without}");
    let (status, with) = hint("GET /v2/verified-resources/emails", &["cal-api-version: 2024-08-13"]);
    assert!(
        status == 404 && with.as_deref().is_some_and(|hint| hint.contains("2024-04-15 (or no header)")),
        "{with:?}"
    );
    assert_eq!(hint("GET /v2/slots", &["cal-api-version: 2024-09-04"]), (200, None));
    // A 404 for another reason, and an unknown version of an operation that has every version.
    assert_eq!(hint("GET /v2/me?sim_status=404", &["cal-api-version: 2031-01-01"]), (404, None));
    assert_eq!(hint("GET /v2/bookings/x?sim_status=404", &[]), (404, None));
    assert_eq!(gateway.access_log(1)[0]["detail"], without);
}

#[test]
fn rejects_a_version_that_is_not_a_date() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("unrestricted", &key).start();
    let own = format!("X-Api-Key: {}", key.text);
    for version in ["latest", "2", "2024-8-13", "2024-02-30", ""] {
        let answer = gateway.ask("GET /v2/bookings", &[&own, &format!("cal-api-version: {version}")]);
        assert_eq!((answer.status, answer.code()), (400, Some("GATEWAY_BAD_REQUEST")), "{version}");
        assert!(answer.text().contains("YYYY-MM-DD"), "{}", answer.text());
    }
    assert_eq!(upstream.requests().len(), 0);
}
