//! Tests of operations that Cal.com's document lacks, of unknown methods and paths, and of messages about a path.

use calgate::catalog::Catalog;

use crate::cal_sim::Sim;
use crate::cal_sim::options::{DEMO_API_KEY, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Options};
use crate::harness::{Gateway, Key, Setup, Upstream};

fn sim() -> Sim {
    let mut options = Options::default();
    options.limits.api_key.clear();
    options.limits.other.clear();
    Sim::start(options).unwrap()
}

fn bearer(key: &Key) -> String {
    format!("Authorization: Bearer {}", key.text)
}

#[test]
fn forwards_operations_that_the_api_document_lacks() {
    let (sim, key) = (sim(), Key::new());
    let setup = Setup::to(&sim.base_url()).with("[budget]\nmode = \"off\"");
    let gateway = setup.billing("unrestricted", &key).env("CAL_TEST_KEY", DEMO_API_KEY).start();
    let mut connection = gateway.connect();
    let mut asked = 0;
    for endpoint in Catalog::built_in().endpoints().iter().filter(|endpoint| !endpoint.is_documented) {
        let path = endpoint.template.as_str().replace(['{', '}'], "");
        let version = endpoint.api_version.as_ref().or(endpoint.api_versions.first());
        let version = version.map(|version| format!("cal-api-version: {}", version.as_str()));
        let headers = [bearer(&key), version.unwrap_or("Accept: */*".to_owned())];
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        let answer = connection.ask(&format!("{} {path}", endpoint.method), &headers);
        if endpoint.credential_operation {
            assert_eq!(answer.code(), Some("GATEWAY_CREDENTIAL_OPERATION"), "{endpoint}");
        } else {
            assert_eq!(answer.status, 200, "{endpoint}: {}", answer.text());
            assert_eq!(answer.json()["data"]["operation"], endpoint.to_string());
            asked += 1;
        }
    }
    assert_eq!((asked, sim.seen_count()), (65, 65));
}

fn forwarding(upstream: &Upstream, plan: &str, key: &Key) -> Gateway {
    let forward = "[catalog]\nunknown_endpoints = \"forward\"";
    let listen = "address = \"127.0.0.1:0\"\ncors_origins = [\"https://app.example.com\"]";
    Setup::to(&upstream.base_url()).listen(listen).with(forward).billing(plan, key).start()
}

#[test]
fn forwards_unknown_methods_by_the_rules_for_unknown_paths() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = forwarding(&upstream, "teams", &key);
    let table = [
        ("PUT /v2/me", 200),
        ("DELETE /v2/Me/", 200),
        ("POST /v2/bookings/x", 200),
        ("PUT /v2/teams/1", 200),
        // The plan excludes an operation of the path, or the prefix of the path.
        ("PUT /v2/organizations/1/teams", 403),
        ("DELETE /v2/provider/x", 403),
        ("PUT /v2/atoms/schedules", 403),
        ("GET /v2/atoms/new", 403),
        // The path shows credentials with any method.
        ("PUT /v2/api-keys/refresh", 405),
        ("GET /v2/Api-Keys/REFRESH/", 405),
        ("PUT /v2/oauth-clients", 405),
        ("PUT /v2/oauth-clients/x/users", 405),
        ("GET /v2/oauth/x/exchange", 405),
        ("POST /v2/stripe/connect", 405),
        ("PUT /v2/ee/me", 404),
        ("PUT /api/v2/me", 404),
        ("PUT /v2/bookings/reccuring", 400),
        ("PURGE /v2/me", 405),
        ("PUT /V2/me", 405),
    ];
    for (request, status) in table {
        let answer = gateway.ask(request, &[&bearer(&key)]);
        assert_eq!(answer.status, status, "{request}: {}", answer.text());
    }
    let arrived: Vec<_> = upstream.requests().into_iter().map(|asked| asked.request_line).collect();
    let expected = ["PUT /v2/me", "DELETE /v2/Me", "POST /v2/bookings/x", "PUT /v2/teams/1"];
    assert_eq!(arrived, expected.map(|line| format!("{line} HTTP/1.1")));
    assert_eq!(gateway.ask("PUT /v2/me", &[]).status, 401, "nobody gets what is not known to be public");
}

#[test]
fn answers_preflights_of_forwarded_paths() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = forwarding(&upstream, "teams", &key);
    let ask = |target: &str| {
        let fields = ["Origin: https://app.example.com", "Access-Control-Request-Method: PUT"];
        let answer = gateway.ask(&format!("OPTIONS {target}"), &fields);
        (answer.status, answer.header("access-control-allow-methods").map(str::to_owned))
    };
    let all = || Some("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT".to_owned());
    assert_eq!(ask("/v2/brand-new"), (204, all()));
    assert_eq!(ask("/v2/me"), (204, all()));
    assert_eq!(ask("/v2/api-keys/refresh"), (204, Some("OPTIONS, POST".to_owned())));
    assert_eq!(ask("/v2/ee/me").0, 404);
    assert_eq!(ask("/v1/me").0, 410);
    assert_eq!(upstream.requests().len(), 0);
    gateway.reload(|text| text.replace("\"forward\"", "\"refuse\""));
    assert_eq!(ask("/v2/brand-new").0, 404);
    assert_eq!(ask("/v2/me"), (204, Some("GET, HEAD, OPTIONS, PATCH".to_owned())));
}

#[test]
fn names_a_rejected_path_and_its_likely_fault() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("unrestricted", &key).start();
    let message = |request: &str| {
        let answer = gateway.ask(request, &[&bearer(&key)]);
        format!("{} {}", answer.status, answer.json()["error"]["message"].as_str().unwrap())
    };
    let start = |request: &str| message(request).split(" An operator").next().unwrap().to_owned();
    let long = format!("GET /v2/new{}", "/segment".repeat(40));
    let lines = [
        start("GET /v2/bookins/AbC"),
        start("GET /v2/organisations/1/teams"),
        start("POST /v2/bookings/AbC/cancell"),
        start("GET /v2/nothing-like-it"),
        start("GET /bookings?afterStart=1"),
        start("GET /"),
        start("GET /v2/v2/me"),
        start("GET /api/v2/me"),
        start("GET /v2/new/cal_live_0123456789/a@example.com/%c3%a9"),
        start(&long),
        message("GET /v1/bookings"),
        message("GET /api/v1/bookings"),
        message("DELETE /v2/me"),
        message("GET /v2/bookings/AbC/cancel"),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r"
    404 The gateway's catalog has no path /v2/bookins/AbC. Is /v2/bookings meant?
    404 The gateway's catalog has no path /v2/organisations/1/teams. Is /v2/organizations meant?
    404 The gateway's catalog has no path /v2/bookings/AbC/cancell. Is /v2/bookings/AbC/cancel meant?
    404 The gateway's catalog has no path /v2/nothing-like-it. Check the path.
    404 The gateway's catalog has no path /bookings. Paths begin with /v2, as in /v2/bookings.
    404 The gateway's catalog has no path /. Paths begin with /v2, as in /v2/me.
    404 The gateway's catalog has no path /v2/v2/me. The path has /v2 twice: the client's base URL ends with /v2, and the client adds it.
    404 The gateway's catalog has no path /api/v2/me. Leave out the alias: paths begin with /v2, without /api or /ee.
    404 The gateway's catalog has no path /v2/new/(...)/(...)/(...). Check the path.
    404 The gateway's catalog has no path /v2/new/segment/segment/segment/segment/segment/segment/segment/segment/segment/segment/segment/segment/.... Check the path.
    410 Cal.com ended API v1 in April 2026, and answers 410. Use API v2, whose paths begin with /v2.
    410 Cal.com ended API v1 in April 2026, and answers 410. Use API v2, whose paths begin with /v2.
    405 The path /v2/me does not support this method. It supports GET, HEAD, OPTIONS and PATCH.
    405 The path /v2/bookings/AbC/cancel does not support this method. It supports OPTIONS and POST.
    ");
    let details: Vec<_> = gateway.access_log(lines.len()).iter().map(|line| line["detail"].to_string()).collect();
    assert!(details.contains(&"\"no path /v2/bookins/AbC in the catalog\"".to_owned()), "{details:?}");
    assert!(!details.iter().any(|detail| detail.contains("cal_live") || detail.contains("example.com")), "{details:?}");
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn injects_client_headers_for_the_operations_that_the_operator_lists() {
    let (sim, key) = (sim(), Key::new());
    let platform = |more: &str| {
        format!(
            "[credentials.platform]\nkind = \"platform-client\"\nclient_id = \"{DEMO_CLIENT_ID}\"\n\
             client_secret = {{ env = \"CAL_SECRET\" }}\nplan = \"unrestricted\"\n{more}\n\
             [consumers.app]\nkeys = [\"{}\"]\ncredential = \"platform\"\n",
            key.hash
        )
    };
    let start =
        |more: &str| Setup::to(&sim.base_url()).with(&platform(more)).env("CAL_SECRET", DEMO_CLIENT_SECRET).start();
    let gateway = start("client_headers = \"documented\"");
    for request in ["GET /v2/me", "GET /v2/bookings"] {
        let answer = gateway.ask(request, &[&bearer(&key)]);
        assert_eq!((answer.status, answer.code()), (403, Some("GATEWAY_CREDENTIAL_UNSUITABLE")), "{request}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("\"platform\"") && message.contains("client_headers = \"anywhere\""), "{message}");
    }
    assert_eq!(sim.seen_count(), 0);
    gateway.reload(|text| text.replace("\"documented\"", "\"anywhere\""));
    let passthrough = "[passthrough]\nenabled = true\nplan = \"unrestricted\"";
    let open = Setup::to(&sim.base_url()).with(passthrough).start();
    let (id, secret) =
        (format!("x-cal-client-id: {DEMO_CLIENT_ID}"), format!("x-cal-secret-key: {DEMO_CLIENT_SECRET}"));
    for request in ["GET /v2/me", "GET /v2/bookings"] {
        for answer in [gateway.ask(request, &[&bearer(&key)]), open.ask(request, &[&id, &secret])] {
            assert_eq!(
                (answer.status, &answer.json()["data"]["credential"]),
                (200, &"platform-client".into()),
                "{request}"
            );
        }
    }
    // Without the setting, they go to the operations that the document lists.
    assert_eq!(start("").ask("GET /v2/organizations/1/teams", &[&bearer(&key)]).status, 200);
}

#[test]
fn passthrough_clients_may_use_operations_that_show_the_credential() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let passthrough = "[passthrough]\nenabled = true\nplan = \"unrestricted\"";
    let gateway = Setup::to(&upstream.base_url()).with(passthrough).billing("unrestricted", &key).start();
    let own = "Authorization: Bearer cal_live_0123456789";
    for path in ["/v2/calendars/google/connect", "/v2/stripe/connect", "/v2/conferencing/zoom/oauth/auth-url"] {
        let shared = gateway.ask(&format!("GET {path}"), &[&bearer(&key)]);
        assert_eq!(shared.code(), Some("GATEWAY_CREDENTIAL_OPERATION"), "{path}");
        assert_eq!(gateway.ask(&format!("GET {path}"), &[own]).status, 200, "{path}");
    }
    assert_eq!(gateway.ask("POST /v2/api-keys/refresh", &[own]).code(), Some("GATEWAY_CREDENTIAL_OPERATION"));
}
