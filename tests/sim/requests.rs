//! Routes, versions, credentials, limits and responses of the simulated Cal.com, over a socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use calgate::catalog::{Accepts, Catalog, Endpoint};

use crate::cal_sim::options::{DEMO_API_KEY, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET};
use crate::cal_sim::{Options, Sim};
use crate::harness::{RawConnection, Response};

fn unlimited() -> Options {
    let mut options = Options::default();
    (options.limits.api_key, options.limits.other) = (Vec::new(), Vec::new());
    options
}

fn ask(at: SocketAddr, request: &str, headers: &[&str]) -> Response {
    RawConnection::connect(at).ask(request, headers)
}

fn bearer() -> String {
    format!("Authorization: Bearer {DEMO_API_KEY}")
}

fn client() -> [String; 2] {
    [format!("x-cal-client-id: {DEMO_CLIENT_ID}"), format!("x-cal-secret-key: {DEMO_CLIENT_SECRET}")]
}

/// Returns the path of an operation with values for its parameters.
fn path(endpoint: &Endpoint) -> String {
    let parts = endpoint.template.as_str().split('/').map(|part| match part {
        "{clientId}" => DEMO_CLIENT_ID,
        part if part.starts_with('{') => "a1",
        part => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

fn makes_tokens(endpoint: &Endpoint) -> bool {
    let template = endpoint.template.as_str();
    endpoint.method == "POST"
        && (template.ends_with("refresh") || template.ends_with("{clientId}/users") || template.ends_with("/token"))
}

#[test]
fn every_operation_is_answered_with_the_parsed_request() {
    let sim = Sim::start(unlimited()).unwrap();
    let mut wire = RawConnection::connect(sim.address());
    let mut kinds = BTreeMap::new();
    for endpoint in Catalog::built_in().endpoints().iter().filter(|endpoint| !makes_tokens(endpoint)) {
        let [id, secret] = client();
        let mut headers = match endpoint.accepts {
            Accepts::Client => vec![id, secret],
            Accepts::Bearer | Accepts::Either | Accepts::Any => vec![bearer()],
        };
        let version = endpoint.api_version.as_ref().or(endpoint.api_versions.first());
        headers.extend(version.map(|version| format!("cal-api-version: {}", version.as_str())));
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        let answer = wire.ask(&format!("{} {}", endpoint.method, path(endpoint)), &headers);
        if endpoint.to_string() == "GET /v2/oauth-clients" {
            assert_eq!(answer.status, 401, "the caller has no organisation");
            continue;
        }
        assert_eq!(answer.status, 200, "{endpoint}: {}", answer.text());
        let data = &answer.json()["data"];
        assert_eq!(data["operation"], endpoint.to_string());
        *kinds.entry(data["credential"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(kinds.values().sum::<i32>() + 6, 340);
    assert_eq!(kinds["platform-client"], 18 - 3, "and three more that make tokens");
}

#[test]
fn paths_are_parsed_as_by_express() {
    let sim = Sim::start(unlimited()).unwrap();
    let (bearer, version) = (bearer(), "cal-api-version: 2024-08-13");
    let ask = |path: &str| ask(sim.address(), &format!("GET {path}"), &[&bearer, version]);
    let found = |path: &str| {
        let answer = ask(path);
        (answer.status == 200).then(|| answer.json()["data"].clone())
    };
    for same in ["/v2/bookings/x", "/V2/BooKings/x", "/v2/bookings/x/", "/api/v2/bookings/x", "/v2/ee/bookings/x"] {
        let data = found(same).unwrap_or_else(|| panic!("{same} is not found"));
        assert_eq!(data["operation"], "GET /v2/bookings/{bookingUid}", "{same}");
    }
    assert_eq!(found("/v2/bookings/12%2Fx").unwrap()["parameters"]["bookingUid"], "12/x");
    assert_eq!(found("/v2/bookings/..").unwrap()["parameters"]["bookingUid"], "..");
    for unknown in ["/v2/%62ookings/x", "/v2//bookings/x", "/v2/bookings/x//", "/api/api/v2/bookings/x", "/", "/v2/x"] {
        let answer = ask(unknown);
        assert_eq!((answer.status, answer.json()["status"].as_str()), (404, Some("error")), "{unknown}");
        assert_eq!(answer.json()["path"], unknown);
    }
    assert_eq!(ask("/v2/bookings/%zz").status, 400);
}

#[test]
fn a_missing_or_unknown_version_is_the_oldest() {
    let sim = Sim::start(unlimited()).unwrap();
    let bearer = bearer();
    let status = |path: &str, more: &[&str]| {
        let headers: Vec<_> = [bearer.as_str()].iter().chain(more).copied().collect();
        ask(sim.address(), path, &headers).status
    };
    assert_eq!(status("GET /v2/slots", &[]), 404);
    assert_eq!(status("GET /v2/slots", &["cal-api-version: 2030-01-01"]), 404);
    assert_eq!(status("GET /v2/slots", &["cal-api-version: 2024-09-04"]), 200);
    for version in ["2024-04-15", "2024-08-13", "2026-05-01", "2030-01-01"] {
        assert_eq!(status("GET /v2/bookings", &[&format!("cal-api-version: {version}")]), 200, "{version}");
    }
    assert_eq!(status("GET /v2/bookings", &["cal-api-version: 2024-09-04"]), 404);
    assert_eq!(status("GET /v2/bookings/x/references", &["cal-api-version: 2024-06-14"]), 404);
    assert_eq!(status("GET /v2/verified-resources/emails", &["cal-api-version: 2024-08-13"]), 404);
    assert_eq!(status("GET /v2/verified-resources/emails", &[]), 200);
    assert_eq!(status("GET /v2/me", &[]), 200, "an operation without versions");
}

#[test]
fn each_operation_accepts_its_kinds_of_credential() {
    let sim = Sim::start(unlimited()).unwrap();
    let (bearer, [id, secret]) = (bearer(), client());
    let ask = |request: &str, headers: &[&str]| {
        let answer = ask(sim.address(), request, headers);
        let kind = answer.json()["data"]["credential"].as_str().map(str::to_owned);
        (answer.status, kind.unwrap_or_default())
    };
    let ok = |kind: &str| (200, kind.to_owned());
    let refused = (401, String::new());
    assert_eq!(ask("GET /v2/me", &[&bearer]), ok("api-key"));
    assert_eq!(ask("GET /v2/me", &[]), refused);
    assert_eq!(ask("GET /v2/me", &["Authorization: Bearer cal_live_other"]), refused);
    assert_eq!(ask("GET /v2/me", &[&id, &secret]), ok("platform-client"), "nearly everywhere");
    let users = format!("GET /v2/oauth-clients/{DEMO_CLIENT_ID}/users");
    assert_eq!(ask(&users, &[&secret]), ok("platform-client"), "the client's id is in the path");
    assert_eq!(ask(&users, &[&bearer]), refused);
    let either = "GET /v2/organizations/7/teams";
    assert_eq!(ask(either, &[&bearer]), ok("api-key"));
    assert_eq!(ask(either, &[&bearer, &id, &secret]), ok("platform-client"), "id and secret win");
    assert_eq!(ask(either, &[&bearer, &id]), ok("api-key"), "but only together");
    assert_eq!(ask(either, &[&bearer, &id, "x-cal-secret-key: wrong"]), refused);
    let slots = "cal-api-version: 2024-09-04";
    assert_eq!(ask("GET /v2/slots", &[slots]), ok("none"));
    assert_eq!(ask("GET /v2/slots", &[slots, "Authorization: Bearer wrong"]), ok("none"), "nobody looks");
    let bookings = "cal-api-version: 2024-08-13";
    assert_eq!(ask("GET /v2/bookings/x", &[bookings]), ok("none"));
    assert_eq!(ask("GET /v2/bookings/x", &[bookings, "Authorization: Bearer wrong"]), refused, "optional, not ignored");
}

#[test]
fn a_blocked_credential_is_reported_in_the_headers() {
    let mut options = Options::default();
    options.limits.api_key = vec![("Default".to_owned(), 2)];
    let sim = Sim::start(options).unwrap();
    let bearer = bearer();
    let ask = |request: &str, headers: &[&str]| ask(sim.address(), request, headers);
    let first = ask("GET /v2/me", &[&bearer]);
    assert_eq!((first.status, first.header("X-RateLimit-Limit-Default")), (200, Some("2")));
    assert_eq!(first.header("X-RateLimit-Remaining-Default"), Some("1"));
    assert_eq!(ask("GET /v2/me", &["Authorization: Bearer wrong"]).status, 401, "another's");
    assert_eq!(ask("GET /v2/unknown", &[&bearer]).status, 404, "which does not count");
    let json = "Content-Type: Application/JSON";
    let posted =
        |body: &str| RawConnection::connect(sim.address()).ask_with("POST /v2/webhooks", &[&bearer, json], body).status;
    assert_eq!((posted("{"), posted(&"x".repeat(100 * 1024 + 1))), (400, 413), "nor do these");
    assert_eq!(ask("GET /v2/bookings/%zz", &[&bearer, "cal-api-version: 2024-08-13"]).status, 400);
    assert_eq!(ask("GET /v2/oauth-clients", &["x-cal-client-id: x"]).status, 401, "an error of a guard does");
    assert_eq!(ask("GET /v2/me", &[&bearer]).header("X-RateLimit-Remaining-Default"), Some("0"));
    let third = ask("GET /v2/me", &[&bearer]);
    assert_eq!((third.status, third.header("X-RateLimit-Reset-Default")), (429, Some("60")));
    assert_eq!((third.header("Retry-After"), third.json()["status"].as_str()), (None, Some("error")));
    assert_eq!(ask("OPTIONS /v2/me", &[&bearer]).status, 204, "which does not");
    assert_eq!(sim.rate_limited(), 1);
    sim.advance(Duration::from_secs(61));
    assert_eq!(ask("GET /v2/me", &[&bearer]).status, 200);
}

#[test]
fn an_operation_with_its_own_counter_does_not_use_the_main_one() {
    let sim = Sim::start(Options::default()).unwrap();
    let (bearer, version) = (bearer(), "cal-api-version: 2024-08-13");
    let statuses = (0..7).map(|_| ask(sim.address(), "POST /v2/bookings/x/guests", &[&bearer, version]).status);
    assert_eq!(statuses.collect::<Vec<_>>(), [200, 200, 200, 200, 200, 429, 429]);
    let refused = ask(sim.address(), "POST /v2/bookings/x/guests", &[&bearer, version]);
    assert_eq!(refused.header("X-RateLimit-Limit-Booking_guests_requests"), Some("5"));
    assert_eq!(refused.header("X-RateLimit-Limit-Default"), None, "either the one or the other");
    let other = ask(sim.address(), "GET /v2/me", &[&bearer]);
    assert_eq!(other.header("X-RateLimit-Remaining-Default"), Some("119"));
}

#[test]
fn requests_of_other_clients_count_too() {
    let mut options = Options::default();
    options.limits.foreign_per_minute = 60;
    let sim = Sim::start(options).unwrap();
    let bearer = bearer();
    let remaining = || {
        let answer = ask(sim.address(), "GET /v2/me", &[&bearer]);
        answer.header("X-RateLimit-Remaining-Default").unwrap().parse::<u32>().unwrap()
    };
    let before = remaining();
    sim.advance(Duration::from_secs(10));
    let used = before - remaining();
    assert!((11..=13).contains(&used), "{used} of them after 10 s at one a second");
}

#[test]
fn received_requests_can_be_inspected() {
    let sim = Sim::start(Options::default()).unwrap();
    let mut wire = RawConnection::connect(sim.address());
    let bearer = bearer();
    wire.ask_with("POST /v2/api-keys/refresh?a=%20b", &[&bearer, "X-Odd: 1", "X-Odd: 2"], "{}");
    let seen = sim.seen().remove(0);
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/v2/api-keys/refresh?a=%20b"));
    assert_eq!((seen.body.as_slice(), seen.body_length, seen.status), (b"{}".as_slice(), 2, Some(200)));
    assert_eq!(seen.operation.as_deref(), Some("POST /v2/api-keys/refresh"));
    assert_eq!((seen.header("authorization"), seen.header("x-odd")), (Some(&bearer["Authorization: ".len()..]), None));
    sim.forget();
    assert_eq!((sim.seen_count(), sim.seen().len()), (0, 0));
}

#[test]
fn large_json_is_refused_and_large_responses_are_sent() {
    let sim = Sim::start(unlimited()).unwrap();
    let mut wire = RawConnection::connect(sim.address());
    let (bearer, large) = (bearer(), "x".repeat(100 * 1024 + 1));
    let json = "Content-Type: application/json";
    let version = "cal-api-version: 2024-08-13";
    assert_eq!(wire.ask_with("POST /v2/bookings", &[&bearer, json, version], &large).status, 413);
    assert_eq!(wire.ask_with("POST /v2/bookings", &[&bearer, version], &large).status, 200);
    assert_eq!(wire.ask("GET /v2/me?sim_body=70000&sim_pause_ms=1", &[&bearer]).body.len(), 70_000);
    assert_eq!(wire.ask("GET /v2/me?sim_status=503", &[&bearer]).status, 503);
    let edge = wire.ask("GET /v2/me?sim_edge=403", &[&bearer]);
    assert_eq!((edge.status, edge.header("content-type")), (403, Some("text/html")));
    let echo = wire.ask("GET /v2/me?sim_forbidden=1", &[&bearer]);
    assert!(echo.status == 403 && echo.text().contains(DEMO_API_KEY));
}

#[test]
fn a_stopped_server_sends_no_response() {
    let sim = Sim::start(unlimited()).unwrap();
    let bearer = bearer();
    let mut open = RawConnection::connect(sim.address());
    assert_eq!(open.ask("GET /v2/me", &[&bearer]).status, 200);
    sim.set_down(true);
    assert!(open.is_closed(), "open connections end");
    assert!(
        RawConnection::connect(sim.address()).send("GET /v2/me HTTP/1.1\r\nHost: x\r\n\r\n").is_closed(),
        "so do new ones"
    );
    sim.set_down(false);
    assert_eq!(ask(sim.address(), "GET /v2/me", &[&bearer]).status, 200);
}

#[test]
fn a_refreshed_key_loses_its_raised_limit() {
    let mut options = Options::default();
    options.limits.api_key = vec![("Default".to_owned(), 800)];
    let sim = Sim::start(options).unwrap();
    let limit = |bearer: &str| {
        let answer = ask(sim.address(), "GET /v2/me", &[bearer]);
        answer.header("X-RateLimit-Limit-Default").map(str::to_owned)
    };
    assert_eq!(limit(&bearer()).as_deref(), Some("800"));
    let refreshed = RawConnection::connect(sim.address()).ask_with("POST /v2/api-keys/refresh", &[&bearer()], "{}");
    let new = format!("Authorization: Bearer {}", refreshed.json()["data"]["apiKey"].as_str().unwrap());
    assert_eq!(limit(&new).as_deref(), Some("120"));
    assert_eq!(limit(&bearer()), None, "an unknown key is not counted");
}
