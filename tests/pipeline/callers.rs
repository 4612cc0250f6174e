//! Tests of callers: gateway keys, requests without a key, and passthrough credentials.

use crate::harness::{Gateway, Key, Response, Setup, Upstream};

fn bearer(key: &Key) -> String {
    format!("Authorization: Bearer {}", key.text)
}

#[test]
fn reads_a_key_from_each_header_that_clients_use() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    let text = &key.text;
    for lines in [
        vec![format!("Authorization: Bearer {text}")],
        vec![format!("authorization: bearer {text}")],
        vec![format!("Authorization: {text}")],
        vec![format!("Authorization: Bearer cal_live_{text}")],
        vec![format!("Authorization: cal_{text}")],
        vec![format!("X-Api-Key: {text}")],
        vec![format!("X-Api-Key: cal_live_{text}")],
        vec![format!("x-cal-secret-key: {text}")],
        vec![format!("x-cal-secret-key: cal_{text}"), "x-cal-client-id: client-0001".to_owned()],
        vec![bearer(&key), format!("X-Api-Key: {text}")],
    ] {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(gateway.ask("GET /v2/me", &lines).status, 200, "{lines:.40?}");
    }
    for asked in upstream.requests() {
        assert_eq!(asked.headers("authorization"), ["Bearer cal_test_0123456789abcdef"]);
        assert!(!format!("{:?}", asked.headers).contains(text), "no gateway key goes upstream");
        for own in ["x-api-key", "x-cal-secret-key", "x-cal-client-id"] {
            assert_eq!(asked.headers(own), Vec::<&str>::new());
        }
    }
}

/// Returns a response without the parts that differ between requests.
fn without_time(answer: &Response) -> String {
    let mut body = answer.json();
    assert!(body["timestamp"].take().is_string());
    let head: Vec<_> =
        answer.head.lines().filter(|l| !l.starts_with("x-request-id:") && !l.starts_with("date:")).collect();
    format!("{}\n{body}", head.join("\n"))
}

#[test]
fn only_the_access_log_distinguishes_wrong_keys() {
    let (upstream, key, expired) = (Upstream::start(), Key::new(), Key::new());
    let keys = format!("keys = [\"{}\", {{ hash = \"{}\", expires = 2020-01-01T00:00:00Z }}]", key.hash, expired.hash);
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    gateway.reload(|text| text.replace(&format!("keys = [\"{}\"]", key.hash), &keys));
    let mut garbled = key.text.clone();
    garbled.replace_range(20..21, if &garbled[20..21] == "0" { "1" } else { "0" });
    let (foreign, unknown) = ("a credential that is not a gateway key", Key::new());
    let presented = [
        (bearer(&unknown), "unknown gateway key sha256:"),
        (bearer(&expired), "expired gateway key sha256:"),
        (format!("Authorization: Bearer {garbled}"), "mistyped gateway key: its checksum"),
        ("Authorization: Bearer calgate_".to_owned(), "mistyped gateway key: wrong length"),
        (format!("Authorization: Token {}", key.text), "a gateway key in a place where it is not read"),
        ("Authorization: Bearer cal_live_0123456789".to_owned(), foreign),
        ("Authorization: Basic dXNlcjpwYXNz".to_owned(), foreign),
        ("Authorization:".to_owned(), "no gateway key"),
        ("X-Api-Key: something".to_owned(), foreign),
        ("x-cal-client-id: client-0001".to_owned(), "no gateway key"),
    ];
    let answers: Vec<_> = presented.iter().map(|(header, _)| gateway.ask("GET /v2/me", &[header])).collect();
    assert!(answers[0].header("www-authenticate").is_some());
    for (answer, (header, detail)) in answers.iter().zip(&presented) {
        assert_eq!((answer.status, answer.code()), (401, Some("GATEWAY_UNAUTHENTICATED")));
        if detail.contains("gateway key sha256:") || detail.starts_with("mistyped") {
            assert_eq!(without_time(answer), without_time(&answers[0]), "{header:.30}");
        }
    }
    gateway.reload(|text| text.replace(&key.hash, &Key::new().hash));
    assert_eq!(without_time(&gateway.ask("GET /v2/me", &[&bearer(&key)])), without_time(&answers[0]), "revoked");
    assert_eq!(upstream.requests().len(), 0);
    let lines = gateway.access_log(presented.len() + 1);
    let expected = presented.iter().map(|(_, detail)| *detail).chain(["revoked gateway key sha256:"]);
    for (line, expected) in lines.iter().zip(expected) {
        let detail = line["detail"].as_str().unwrap();
        assert!(detail.starts_with(expected), "{line}");
    }
    assert!(lines[0]["detail"].as_str().unwrap().contains(&unknown.hash[..19]), "the operator can look for it");
    assert_eq!(lines[1]["detail"].as_str().unwrap().split('"').nth(1), Some("billing"));
    let text = format!("{lines:?}{:?}", gateway.log());
    for text_of_key in [&key.text, &expired.text, &unknown.text, &garbled] {
        assert!(!text.contains(&text_of_key[8..]), "the log holds no key");
    }
}

#[test]
fn slows_an_address_with_many_bad_keys_but_not_valid_keys() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url())
        .listen("address = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]")
        .billing("teams", &key)
        .start();
    let from =
        |address: &str, key: &Key| gateway.ask("GET /v2/me", &[&bearer(key), &format!("X-Forwarded-For: {address}")]);
    let guesses: Vec<_> = (0..40).map(|_| from("203.0.113.1", &Key::new()).status).collect();
    assert!(guesses.starts_with(&[401]) && guesses.ends_with(&[429]), "{guesses:?}");
    let slowed = from("203.0.113.1", &Key::new());
    assert_eq!(slowed.code(), Some("GATEWAY_TOO_MANY_FAILURES"));
    assert!(slowed.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(from("203.0.113.1", &key).status, 200, "a valid key from the same address");
    assert_eq!(from("203.0.113.2", &Key::new()).status, 401, "another address");
    let slowed = gateway.access_log(43).into_iter().find(|line| line["status"] == 429).unwrap();
    assert!(slowed["detail"].as_str().unwrap().starts_with("unknown gateway key"), "{slowed}");
}

#[test]
fn callers_without_a_key_act_as_the_anonymous_consumer_if_configured() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let anonymous = "[anonymous]\nconsumer = \"billing\"";
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).with(anonymous).start();
    let placeholders = [
        &[][..],
        &["Authorization: Bearer cal_live_placeholder"],
        &["Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "x-cal-client-id: placeholder"],
        &["Authorization: Basic dXNlcjpwYXNz"],
        &["X-Api-Key: placeholder"],
        &["x-cal-secret-key: placeholder", "x-cal-client-id: placeholder"],
        &["Authorization: Bearer placeholder", "x-cal-secret-key: placeholder"],
    ];
    for placeholder in placeholders {
        assert_eq!(gateway.ask("GET /v2/me", placeholder).status, 200, "{placeholder:?}");
    }
    let asked = upstream.requests();
    assert_eq!(asked.len(), placeholders.len());
    for asked in asked {
        assert_eq!(asked.headers("authorization"), ["Bearer cal_test_0123456789abcdef"]);
        assert!(!format!("{:?}", asked.headers).contains("placeholder"));
    }
    for wrong in [bearer(&Key::new()), "X-Api-Key: cal_live_calgate_mistyped".to_owned()] {
        assert_eq!(gateway.ask("GET /v2/me", &[&wrong]).status, 401, "a wrong gateway key is not a placeholder");
    }
}

#[test]
fn serves_a_public_operation_without_the_callers_credential() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).start();
    for foreign in [
        &["Authorization: Bearer cal_live_0123456789"][..],
        &["X-Api-Key: something"],
        &["x-cal-client-id: client-0001"],
        &["x-cal-client-id: client-0001", "x-cal-secret-key: secret-0001"],
    ] {
        let answer = gateway.ask("GET /v2/slots?eventTypeId=1", foreign);
        assert_eq!((answer.status, answer.header("x-ratelimit-limit-default")), (200, Some("120")), "{foreign:?}");
    }
    for asked in upstream.requests() {
        for name in ["authorization", "x-api-key", "x-cal-client-id", "x-cal-secret-key"] {
            assert_eq!(asked.headers(name), Vec::<&str>::new());
        }
    }
    assert_eq!(gateway.ask("GET /v2/slots", &[&bearer(&Key::new())]).status, 401, "a wrong gateway key is refused");
}

#[test]
fn limits_public_operations_by_address_without_an_anonymous_consumer() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let gateway = Setup::to(&upstream.base_url())
        .listen("address = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.0/8\"]")
        .with("[anonymous]\nrequests_per_minute = 3")
        .billing("teams", &key)
        .start();
    let from = |address: &str| gateway.ask("GET /v2/slots", &[&format!("X-Forwarded-For: {address}")]);
    assert_eq!(gateway.ask("GET /v2/me", &[]).status, 401);
    let first = from("203.0.113.1");
    assert_eq!((first.status, first.header("x-ratelimit-limit-default")), (200, Some("3")));
    assert_eq!(upstream.only_request().headers("authorization"), Vec::<&str>::new());
    let spoofed = ["198.51.100.1, 203.0.113.1", "198.51.100.2,203.0.113.1"];
    assert_eq!(spoofed.map(|from_| from(from_).status), [200, 200], "what stands left of the caller proves nothing");
    assert_eq!(from("203.0.113.1").status, 429);
    assert_eq!(from("203.0.113.2").status, 200);
    let one_network = ["2001:db8::1", "2001:db8::2", "2001:db8:0:0:9::3", "2001:db8::4"];
    assert_eq!(one_network.map(|address| from(address).status), [200, 200, 200, 429]);
    assert_eq!(from("2001:db8:0:1::1").status, 200);
}

#[test]
fn an_untrusted_peer_cannot_name_another_address() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let anonymous = "[anonymous]\nrequests_per_minute = 2";
    let gateway = Setup::to(&upstream.base_url()).with(anonymous).billing("teams", &key).start();
    let statuses: Vec<_> =
        (0..3).map(|n| gateway.ask("GET /v2/slots", &[&format!("X-Forwarded-For: 203.0.113.{n}")]).status).collect();
    assert_eq!(statuses, [200, 200, 429]);
}

fn passthrough(upstream: &Upstream, more: &str) -> Gateway {
    let section = format!("[passthrough]\nenabled = true\nplan = \"platform-free\"\ntier = \"standard\"\n{more}");
    Setup::to(&upstream.base_url()).with(&section).start()
}

#[test]
fn passthrough_forwards_only_the_callers_credential() {
    let upstream = Upstream::start();
    let gateway = passthrough(&upstream, "");
    let jwt = "Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl";
    for own in [&["Authorization: Bearer cal_0123456789"][..], &["Authorization: Bearer cal_live_0123456789"], &[jwt]] {
        let answer = gateway.ask("GET /v2/me", own);
        assert_eq!((answer.status, answer.header("x-ratelimit-limit-default")), (200, Some("120")), "{own:?}");
        assert_eq!(answer.header("x-ratelimit-remaining-default"), Some("119"), "each credential has its own bucket");
    }
    let client = ["x-cal-client-id: client-0001", "x-cal-secret-key: secret-0001"];
    assert_eq!(gateway.ask("GET /v2/oauth-clients/1/users", &client).status, 200);
    let sent: Vec<_> = upstream
        .requests()
        .iter()
        .map(|a| (a.headers("authorization").len(), a.headers("x-cal-secret-key").len()))
        .collect();
    assert_eq!(sent, [(1, 0), (1, 0), (1, 0), (0, 1)]);
    let both = [client[0], client[1], jwt];
    assert_eq!(
        gateway.ask("GET /v2/me", &both).status,
        400,
        "Cal.com would count by one and authenticate by the other"
    );
    for bad in [
        "Authorization: Bearer opaque",
        "Authorization: Bearer a.b",
        "X-Api-Key: cal_0123456789",
        "x-cal-client-id: client-0001",
    ] {
        assert_eq!(gateway.ask("GET /v2/me", &[bad]).status, 401, "{bad}");
    }
    assert_eq!(gateway.ask("GET /v2/teams", &[jwt]).status, 403, "the section's plan holds");
}

#[test]
fn passthrough_accepts_the_combinations_that_cal_com_clients_send() {
    let upstream = Upstream::start();
    let gateway = passthrough(&upstream, "");
    let (id, secret) = ("x-cal-client-id: client-0001", "x-cal-secret-key: secret-0001");
    let jwt = "Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl";
    let sent = jwt.trim_start_matches("Authorization: ");
    let of_path = "GET /v2/oauth-clients/client-0002/users";
    // The request, and the authorization, client id and secret that go upstream.
    let table: [(&str, &[&str], [&str; 3]); 8] = [
        ("GET /v2/me", &[jwt, id], [sent, "client-0001", ""]),
        ("GET /v2/slots", &[jwt, id], [sent, "client-0001", ""]),
        ("GET /v2/me", &["Authorization: cal_0123456789"], ["Bearer cal_0123456789", "", ""]),
        (of_path, &[secret], ["", "client-0002", "secret-0001"]),
        (of_path, &[secret, id], ["", "client-0002", "secret-0001"]),
        ("GET /v2/slots", &[secret, id], ["", "client-0001", "secret-0001"]),
        ("GET /v2/slots", &[secret], ["", "", ""]),
        ("GET /v2/slots", &[id], ["", "", ""]),
    ];
    for (request, lines, _) in &table {
        assert_eq!(gateway.ask(request, lines).status, 200, "{request} with {lines:?}");
    }
    for (asked, (request, lines, expected)) in upstream.requests().iter().zip(&table) {
        let got = ["authorization", "x-cal-client-id", "x-cal-secret-key"].map(|name| asked.headers(name).join(", "));
        assert_eq!(got, *expected, "{request} with {lines:?}");
    }
    assert_eq!(gateway.ask("GET /v2/me", &[secret]).status, 401, "there is no client id anywhere");
    let detail = gateway.access_log(table.len() + 1).last().unwrap()["detail"].clone();
    assert_eq!(detail, "x-cal-secret-key without x-cal-client-id, and no {clientId} in the path");
}

#[test]
fn with_passthrough_only_requests_without_a_credential_are_anonymous() {
    let (upstream, key) = (Upstream::start(), Key::new());
    let both =
        "[anonymous]\nconsumer = \"billing\"\n[passthrough]\nenabled = true\nplan = \"teams\"\nlive_keys = false";
    let gateway = Setup::to(&upstream.base_url()).billing("teams", &key).with(both).start();
    let status = |header: &str| gateway.ask("GET /v2/me", &[header]).status;
    assert_eq!(status("Authorization: Bearer placeholder"), 200);
    assert_eq!(status("Authorization: Bearer cal_0123456789"), 200);
    assert_eq!(status("Authorization: Bearer cal_live_0123456789"), 401, "a refused key is not the consumer's");
    let sent: Vec<_> = upstream.requests().iter().map(|asked| asked.headers("authorization").join(", ")).collect();
    assert_eq!(sent, ["Bearer cal_test_0123456789abcdef", "Bearer cal_0123456789"]);
}

#[test]
fn passthrough_does_not_charge_a_credential_of_the_wrong_kind() {
    let upstream = Upstream::start();
    let gateway = passthrough(&upstream, "");
    let own = "Authorization: Bearer cal_0123456789";
    let answer = gateway.ask("GET /v2/oauth-clients/1/users", &[own]);
    let left = answer.header("x-ratelimit-remaining-default");
    assert_eq!((answer.code(), left), (Some("GATEWAY_CREDENTIAL_UNSUITABLE"), Some("120")));
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn limits_rejected_credentials_by_address_but_not_valid_keys() {
    let upstream = Upstream::answering(|asked| match asked.headers("authorization")[..] {
        [token] if token.contains("expired") => b"HTTP/1.1 498 Expired\r\nContent-Length: 0\r\n\r\n".to_vec(),
        [token] if token.contains("made-up") => b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => crate::harness::OK.into(),
    });
    let key = Key::new();
    let passthrough = "[tiers.small]\nrequests_per_minute = 5\n\
                       [passthrough]\nenabled = true\nplan = \"platform-free\"\ntier = \"small\"";
    let gateway = Setup::to(&upstream.base_url())
        .listen("address = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]")
        .with(passthrough)
        .billing("teams", &key)
        .start();
    let from = |address: &str, token: &str| {
        let fields = [&*format!("Authorization: Bearer {token}"), &*format!("X-Forwarded-For: {address}")];
        gateway.ask("GET /v2/me", &fields)
    };
    for (address, kind) in [("203.0.113.1", "made-up"), ("203.0.113.2", "expired")] {
        let before = upstream.requests().len();
        let answers: Vec<_> = (0..60).map(|n| from(address, &format!("aaaa{n}.{kind}.cccc"))).collect();
        let slowed = answers.iter().filter(|answer| answer.code() == Some("GATEWAY_TOO_MANY_FAILURES")).count();
        assert!(slowed > 0, "{kind}");
        assert_eq!(upstream.requests().len() - before, 60 - slowed, "those that were slowed were not sent");
        assert_eq!(from(address, &key.text).status, 200, "a valid gateway key from the same address");
    }
    assert_eq!(from("203.0.113.3", "aaaa.good.cccc").status, 200, "another address");
}

#[test]
fn passthrough_can_reject_test_mode_and_live_mode_keys() {
    let upstream = Upstream::start();
    let (test, live) = ("Authorization: Bearer cal_0123456789", "Authorization: Bearer cal_live_0123456789");
    let gateway = passthrough(&upstream, "test_keys = false");
    assert_eq!([test, live].map(|key| gateway.ask("GET /v2/me", &[key]).status), [401, 200]);
    let gateway = passthrough(&upstream, "live_keys = false");
    assert_eq!([test, live].map(|key| gateway.ask("GET /v2/me", &[key]).status), [200, 401]);
}
