//! Secrets in responses: calgate stores and removes new tokens, and removes injected secrets. Nothing that the gateway writes
//! contains a secret in any form.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use super::rig::{Rig, SEAL_KEY, living};
use crate::cal_sim::Pair;
use crate::cal_sim::options::{DEMO_API_KEY, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, DEMO_OAUTH_SECRET, TokenRules};
use crate::harness::{Gateway, eventually};

const OPERATIONS: &str = "allow_credential_operations = [\"POST /v2/oauth-clients/{clientId}/users\", \
    \"POST /v2/oauth-clients/{clientId}/users/{userId}/force-refresh\", \"POST /v2/oauth/{clientId}/refresh\"]";

fn post(rig: &Rig, gateway: &Gateway, path: &str, body: &str) -> crate::harness::Response {
    let key = format!("X-Api-Key: {}", rig.key.text);
    gateway.connect().ask_with(&format!("POST {path}"), &[&key, "Content-Type: application/json"], body)
}

#[test]
fn tokens_of_managed_users_are_stored_and_redacted() {
    let mut rig = Rig::new(TokenRules::default());
    rig.users = OPERATIONS;
    let gateway = rig.start();
    let users = format!("/v2/oauth-clients/{DEMO_CLIENT_ID}/users");
    let made = post(&rig, &gateway, &users, "{\"email\":\"a@example.com\",\"name\":\"A\"}");
    assert_eq!(made.status, 200, "{}", made.text());
    let data = &made.json()["data"];
    assert_eq!(
        (&data["accessToken"], &data["refreshToken"]),
        (&"(kept by calgate)".into(), &"(kept by calgate)".into())
    );
    let user = data["user"]["id"].as_u64().unwrap();
    assert_eq!(rig.for_user(&gateway, user, "GET /v2/me").status, 200);
    let forced = post(&rig, &gateway, &format!("{users}/{user}/force-refresh"), "{}");
    assert_eq!(forced.json()["data"]["accessToken"], "(kept by calgate)");
    assert_eq!(rig.for_user(&gateway, user, "GET /v2/me").status, 200);
    // The gateway stores a pair from elsewhere when a client refreshes it through the gateway.
    let (known, pair) = rig.sim.new_managed_user(DEMO_CLIENT_ID);
    let body = format!("{{\"refreshToken\":\"{}\"}}", pair.refresh);
    let refreshed = post(&rig, &gateway, &format!("/v2/oauth/{DEMO_CLIENT_ID}/refresh"), &body);
    assert_eq!(refreshed.json()["data"]["refreshToken"], "(kept by calgate)");
    assert_eq!(rig.for_user(&gateway, known, "GET /v2/me").status, 200);
    assert_eq!(rig.sim.token_counts().refused, 0);
}

#[test]
fn tokens_are_redacted_whatever_the_catalog_names_its_parameters() {
    let mut rig = Rig::new(TokenRules::default());
    let renamed = |text: &str| text.replace("{userId}", "{id}").replace("{clientId}", "{client}");
    let file = rig.folder.path().join("catalog.toml");
    fs::write(&file, renamed(include_str!("../../config/catalog.toml"))).unwrap();
    rig.users = renamed(OPERATIONS).leak();
    let gateway = rig.setup().with(&format!("[catalog]\nfile = \"{}\"\n", file.display())).start();
    let (user, pair) = rig.sim.new_managed_user(DEMO_CLIENT_ID);
    let forced = post(&rig, &gateway, &format!("/v2/oauth-clients/{DEMO_CLIENT_ID}/users/{user}/force-refresh"), "{}");
    assert_eq!(forced.json()["data"]["accessToken"], "(kept by calgate)", "{}", forced.text());
    assert!(!forced.text().contains(&pair.access));
    assert_eq!(rig.for_user(&gateway, user, "GET /v2/me").status, 200);
}

#[test]
fn revealed_tokens_are_stored_too() {
    let mut rig = Rig::new(TokenRules::default());
    (rig.users, rig.platform) = (OPERATIONS, "reveal_tokens = true");
    let gateway = rig.start();
    let made = post(&rig, &gateway, &format!("/v2/oauth-clients/{DEMO_CLIENT_ID}/users"), "{}");
    assert!(made.json()["data"]["accessToken"].as_str().unwrap().contains('.'));
    let user = made.json()["data"]["user"]["id"].as_u64().unwrap();
    assert_eq!(rig.for_user(&gateway, user, "GET /v2/me").status, 200);
}

/// The credential `main`, an API key, for the consumer `keys`, whose key is the rig's.
const MAIN: &str = "[credentials.main]\nkind = \"api-key\"\napi_key = { env = \"CAL_KEY\" }\nplan = \"unrestricted\"\n\
    [consumers.keys]\nkeys = [\"HASH\"]\ncredential = \"main\"\n\
    allow_credential_operations = [\"POST /v2/api-keys/refresh\"]\n";

#[test]
fn a_refreshed_api_key_replaces_the_configured_one_on_every_replica_and_after_a_restart() {
    let rig = Rig::new(TokenRules::default());
    let key = crate::harness::Key::new();
    let setup = || rig.setup().with(&MAIN.replace("HASH", &key.hash)).env("CAL_KEY", DEMO_API_KEY);
    let (one, other) = (setup().start(), setup().start());
    let own = format!("X-Api-Key: {}", key.text);
    let me = |gateway: &Gateway| gateway.ask("GET /v2/me", &[&own]).status;
    assert_eq!((me(&one), me(&other)), (200, 200));
    let answer = one.connect().ask_with("POST /v2/api-keys/refresh", &[&own, "Content-Type: application/json"], "{}");
    assert_eq!((answer.status, &answer.json()["data"]["apiKey"]), (200, &"(kept by calgate)".into()));
    assert_eq!((me(&one), me(&other), me(&setup().start())), (200, 200, 200));
    assert_eq!(rig.sim.token_counts().api_key_refreshes, 1);
}

#[test]
fn a_request_for_tokens_that_cannot_be_stored_is_refused() {
    let (sim, key) = (super::rig::sim(TokenRules::default()), crate::harness::Key::new());
    let setup = crate::harness::Setup::to(&sim.base_url()).with(&MAIN.replace("HASH", &key.hash));
    let gateway = setup.env("CAL_KEY", DEMO_API_KEY).start();
    let own = format!("X-Api-Key: {}", key.text);
    let answer = gateway.connect().ask_with("POST /v2/api-keys/refresh", &[&own], "{}");
    assert_eq!((answer.status, answer.code()), (403, Some("GATEWAY_TOKENS_UNKEPT")));
    let [limit, left] = ["limit", "remaining"].map(|what| answer.header(&format!("x-ratelimit-{what}-default")));
    assert_eq!(limit.zip(left).map(|(limit, left)| limit == left), Some(true), "it costs nothing");
    assert_eq!(sim.seen_count(), 0);
}

#[test]
fn an_echoed_token_is_removed_from_errors() {
    let rig = Rig::new(TokenRules::default());
    let pair = rig.import_app();
    let gateway = rig.start();
    let answer = gateway.ask("GET /v2/me?sim_forbidden=1", &["Accept-Encoding: gzip"]);
    assert_eq!(answer.status, 403);
    assert!(
        !answer.text().contains(&pair.access) && answer.text().contains("(removed by calgate)"),
        "{}",
        answer.text()
    );
    assert_eq!(answer.header("content-length").unwrap(), answer.body.len().to_string());
}

#[test]
fn an_echoed_secret_is_found_in_a_compressed_error_too() {
    let echo = |asked: &crate::harness::ReceivedRequest| {
        let coding = asked.headers("accept-encoding").join("|");
        let (coding, body) = match asked.target() {
            "/v2/me?br" => ("br".to_owned(), b"whatever".to_vec()),
            "/v2/me?plain" => (coding, gzip(b"no such thing")),
            _ => (coding, gzip(asked.headers("authorization")[0].as_bytes())),
        };
        let head = format!(
            "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body].concat()
    };
    let (upstream, key) = (crate::harness::Upstream::answering(echo), crate::harness::Key::new());
    let gateway = crate::harness::Setup::to(&upstream.base_url()).billing("unrestricted", &key).start();
    let ask = |target: &str| {
        gateway.ask(&format!("GET {target}"), &[&format!("X-Api-Key: {}", key.text), "Accept-Encoding: br, gzip"])
    };
    let answer = ask("/v2/me");
    assert_eq!((answer.status, answer.text().as_str()), (403, "Bearer (removed by calgate)"));
    assert_eq!(answer.header("content-encoding"), None);
    let answer = ask("/v2/me?plain");
    assert_eq!((answer.header("content-encoding"), &answer.body), (Some("gzip"), &gzip(b"no such thing")));
    let answer = ask("/v2/me?br");
    assert_eq!((answer.status, answer.code()), (403, None), "the status is Cal.com's");
    assert!(answer.text().contains("UNREADABLE_UPSTREAM_BODY"), "nobody asked for that coding: {}", answer.text());
}

/// Returns the response of a gateway whose upstream answers 403 with this head. `body` receives the key of the upstream
/// request.
fn forbidding(head: &str, body: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> crate::harness::Response {
    let head = format!("HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\n{head}");
    let echo = move |asked: &crate::harness::ReceivedRequest| {
        let body = body(asked.headers("authorization")[0].strip_prefix("Bearer ").unwrap());
        [head.replace("LENGTH", &body.len().to_string()).into_bytes(), b"\r\n\r\n".to_vec(), body].concat()
    };
    let (upstream, key) = (crate::harness::Upstream::answering(echo), crate::harness::Key::new());
    let gateway = crate::harness::Setup::to(&upstream.base_url()).billing("unrestricted", &key).start();
    gateway.ask("GET /v2/me", &[&format!("X-Api-Key: {}", key.text), "Accept-Encoding: gzip"])
}

#[test]
fn an_echoed_secret_is_found_in_a_long_error_too() {
    let padding = || "x".repeat(70_000);
    let around = move |key: &str| format!("<{key}>{}<{key}><{key}>{}{key}", padding(), padding());
    let answer = forbidding("Content-Length: LENGTH\r\nETag: \"1\"", move |key| around(key).into_bytes());
    let masked = around(&"*".repeat(crate::harness::UPSTREAM_KEY.len()));
    assert!(answer.status == 403 && answer.text() == masked && answer.header("etag").is_none());

    // Some chunks end in the middle of the key.
    let answer = forbidding("Transfer-Encoding: chunked", move |key| {
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
        let (first, last) = key.split_at(key.len() / 2);
        [&*padding(), first, last, ".", first, "-", first, last]
            .map(chunk)
            .concat()
            .into_bytes()
            .into_iter()
            .chain(*b"0\r\n\r\n")
            .collect()
    });
    let stars = "*".repeat(crate::harness::UPSTREAM_KEY.len());
    let half = &crate::harness::UPSTREAM_KEY[..stars.len() / 2];
    assert_eq!(&answer.text()[70_000..], format!("{stars}.{half}-{stars}"));

    let answer = forbidding("Content-Length: LENGTH", |_| "y".repeat(200_000).into_bytes());
    assert!(answer.status == 403 && answer.text() == "y".repeat(200_000));
}

#[test]
fn a_long_error_that_cannot_be_searched_is_not_passed_on() {
    for coding in ["gzip", "gzip\r\nContent-Encoding: identity", "identity\r\nContent-Encoding: gzip"] {
        let answer = forbidding(&format!("Content-Length: LENGTH\r\nContent-Encoding: {coding}"), |key| {
            let text = [key.as_bytes(), &"x".repeat(70_000).into_bytes()].concat();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
            std::io::Write::write_all(&mut encoder, &text).unwrap();
            encoder.finish().unwrap()
        });
        assert_eq!((answer.status, answer.code()), (403, None), "{coding}");
        let said = answer.text();
        assert!(said.contains("UNREADABLE_UPSTREAM_BODY") && !said.contains(crate::harness::UPSTREAM_KEY), "{coding}");
    }
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_credential_comes_back_in_no_header_and_no_error() {
    let echo = |asked: &crate::harness::ReceivedRequest| {
        let bearer = asked.headers("authorization")[0].to_owned();
        let (status, kind) = match asked.request_line.split(' ').nth(1) {
            Some("/v2/me?200") => ("200 OK", "application/json"),
            Some("/v2/me?500") => ("500 Internal Server Error", "text/html; charset=utf-8"),
            _ => ("403 Forbidden", "application/problem+json"),
        };
        let body = format!("<{bearer}> and {bearer}");
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nX-Echo: {bearer};a={bearer}\r\nETag: \"1\"\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    };
    let (upstream, key) = (crate::harness::Upstream::answering(echo), crate::harness::Key::new());
    let gateway = crate::harness::Setup::to(&upstream.base_url()).billing("unrestricted", &key).start();
    let own = format!("X-Api-Key: {}", key.text);
    for (query, status, cleaned) in [("200", 200, false), ("500", 500, true), ("403", 403, true)] {
        let answer = gateway.ask(&format!("GET /v2/me?{query}"), &[&own]);
        let secret = crate::harness::UPSTREAM_KEY;
        assert_eq!(answer.status, status);
        assert!(!answer.head.contains(secret), "{}", answer.head);
        assert_eq!(answer.header("x-echo"), Some("Bearer (removed by calgate);a=Bearer (removed by calgate)"));
        assert_eq!(!answer.text().contains(secret), cleaned, "{}", answer.text());
    }
}

/// All encodings in which the gateway might write a secret.
fn spellings(secret: &str) -> Vec<String> {
    let (mut hex, mut percent) = (String::new(), String::new());
    for byte in secret.bytes() {
        hex += &format!("{byte:02x}");
        percent += &format!("%{byte:02X}");
    }
    let mut all = vec![secret.to_owned(), hex.to_uppercase(), hex, percent.to_lowercase(), percent];
    for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
        all.push(engine.encode(secret));
        all.push(engine.encode(format!("Bearer {secret}")));
    }
    all
}

fn files(folder: &Path, found: &mut Vec<u8>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.extend(fs::read(&path).unwrap());
        }
    }
}

#[test]
fn the_gateway_writes_and_returns_no_secret() {
    let mut rig = Rig::new(living(3));
    (rig.users, rig.platform) = (OPERATIONS, "recover = \"force-refresh\"");
    let ((user, of_user), of_app) = (rig.import_user(), rig.import_app());
    let gateway = rig.setup().with("[log]\nlevel = \"trace\"\n").start();
    let mut written = Vec::new();
    let mut note = |answer: crate::harness::Response| {
        written.extend(answer.head.into_bytes());
        written.extend(answer.body);
    };
    let users = format!("/v2/oauth-clients/{DEMO_CLIENT_ID}/users");
    for path in ["/v2/me", "/v2/me?sim_forbidden=1", "/v2/me?sim_status=500", "/v2/nothing"] {
        note(gateway.ask(&format!("GET {path}"), &[]));
        note(rig.for_user(&gateway, user, &format!("GET {path}")));
    }
    note(post(&rig, &gateway, &users, "{}"));
    note(post(&rig, &gateway, &format!("{users}/{user}/force-refresh"), "{}"));
    rig.sim.lose_next_token_answers(1);
    eventually("renewals", || {
        gateway.ask("GET /v2/me", &[]);
        rig.for_user(&gateway, user, "GET /v2/me");
        (rig.sim.token_counts().oauth_refreshes >= 2).then_some(())
    });
    rig.sim.set_down(true);
    eventually("degraded", || (gateway.ask("GET /v2/me", &[]).status == 503).then_some(()));
    note(gateway.ask("GET /v2/me", &[]));
    rig.sim.set_down(false);
    for page in ["GET /metrics", "GET /readyz", "GET /livez"] {
        note(gateway.ask_admin(page, &[]));
    }
    for command in [vec!["credentials"], vec!["credentials", "--json"], vec!["check"], vec!["store", "rekey"]] {
        written.extend(rig.ran(&command, "").into_bytes());
    }
    written.extend(rig.ran(&["explain", "--consumer", "app", "--json", "GET", "/v2/me"], "").into_bytes());
    written.extend(rig.refused(&["login", "app", "--code"], "canary-code\n").into_bytes());
    gateway.access_log(10);
    written.extend(gateway.log().join("\n").into_bytes());
    written.extend(gateway.access_log(0).iter().flat_map(|line| line.to_string().into_bytes()));
    files(rig.folder.path(), &mut written);

    let tokens = |pair: &Pair| [pair.access.clone(), pair.refresh.clone()];
    let seen = rig.sim.seen();
    let sent = seen.iter().filter_map(|seen| seen.header("authorization")?.strip_prefix("Bearer ").map(str::to_owned));
    let mut secrets: Vec<String> = sent.chain(tokens(&of_user)).chain(tokens(&of_app)).collect();
    secrets.extend([SEAL_KEY, DEMO_CLIENT_SECRET, DEMO_OAUTH_SECRET, &rig.key.text].map(str::to_owned));
    secrets.sort();
    secrets.dedup();
    assert!(secrets.len() > 8);
    let text = String::from_utf8_lossy(&written);
    assert!(text.contains("a credential was renewed") && text.contains("GATEWAY_CREDENTIAL_UNAVAILABLE"));
    for secret in secrets {
        for spelling in spellings(&secret) {
            assert!(!text.contains(&spelling), "{spelling} of {secret}");
        }
    }
}

#[test]
fn the_process_leaves_no_core() {
    let rig = Rig::new(TokenRules::default());
    let gateway = rig.start();
    let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", gateway.pid())).unwrap();
    let limits = of("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
}
