//! Token responses that differ from the documentation. calgate accepts every pair, because it exists only once, and reports what is
//! missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::rig::{Rig, sim};
use crate::cal_sim::options::{DEMO_CLIENT_ID, TokenRules};
use crate::harness::{OK, ReceivedRequest, Upstream, eventually};

/// An expired access token, and a refresh token.
const RUN_OUT: &str = "{\"access_token\":\"run-out\",\"refresh_token\":\"refresh-0\",\"expires_at\":1}";

/// Returns a response with this status and JSON body.
fn json(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// Starts an upstream whose token endpoints answer with `respond`, and returns the counter of their requests. `respond`
/// receives the number of earlier requests.
fn token_endpoint(respond: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static) -> (Rig, Upstream, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let upstream = Upstream::answering(move |request: &ReceivedRequest| match request.request_line.split(' ').next() {
        Some("POST") => respond(counted.fetch_add(1, Ordering::Relaxed)),
        _ if request.headers("authorization") == ["Bearer new-access"] => OK.into(),
        _ => json("401 Unauthorized", "{\"status\":\"error\"}"),
    });
    let mut rig = Rig::at(sim(TokenRules::default()));
    rig.upstream = Some(upstream.base_url());
    (rig, upstream, asked)
}

#[test]
fn an_oauth_pair_survives_invalid_fields_beside_it() {
    let table = [
        ("\"token_type\":\"bearer\",\"expires_in\":\"1800\"", "text"),
        ("\"token_type\":\"bearer\",\"expires_in\":1799.5", "a fraction"),
        ("\"expires_in\":1800", "no token_type"),
        ("\"token_type\":null,\"expires_in\":null,\"scope\":[1,{\"a\":2}]", "nulls and a list"),
        ("\"token_type\":5,\"expires_in\":-1,\"error\":\"none\"", "a number, and a life below zero"),
        ("\"expires_in\":0", "a life of nothing"),
        ("\"expires_in\":1e300", "a life beyond all bounds"),
        ("\"expires_in\":\"soon\",\"user\":\"x\",\"id\":{}", "nonsense"),
    ];
    let flat = |rest: &str| format!("{{\"access_token\":\"new-access\",\"refresh_token\":\"refresh-1\",{rest}}}");
    let enveloped = |rest: &str| {
        let pair = format!("\"accessToken\":\"new-access\",\"refreshToken\":\"refresh-1\",{rest}");
        format!("{{\"status\":\"success\",\"data\":{{{pair}}}}}")
    };
    for (rest, what) in table {
        for body in [flat(rest), enveloped(rest)] {
            let (rig, _upstream, asked) = token_endpoint({
                let body = body.clone();
                move |_| json("200 OK", &body)
            });
            rig.ran(&["credentials", "import", "app"], RUN_OUT);
            let gateway = rig.start();
            assert_eq!(gateway.ask("GET /v2/me", &[]).status, 200, "{what}: {body}");
            assert_eq!((asked.load(Ordering::Relaxed), rig.state("app").as_str()), (1, "fresh"), "{what}: {body}");
        }
    }
}

#[test]
fn a_managed_users_pair_survives_invalid_fields_beside_it() {
    let table = [
        "\"accessTokenExpiresAt\":\"4102444800000\"",
        "\"accessTokenExpiresAt\":4102444800000.5",
        "\"accessTokenExpiresAt\":\"2100-01-01T00:00:00.000Z\"",
        "\"accessTokenExpiresAt\":{},\"refreshTokenExpiresAt\":[]",
        "\"user\":7",
    ];
    for rest in table {
        let body = format!("{{\"data\":{{\"accessToken\":\"new-access\",\"refreshToken\":\"r1\",{rest}}}}}");
        let (rig, _upstream, asked) = token_endpoint(move |_| json("200 OK", &body));
        rig.ran(&["credentials", "import", "platform", "--managed-user", "7"], RUN_OUT);
        let gateway = rig.start();
        assert_eq!(rig.for_user(&gateway, 7, "GET /v2/me").status, 200, "{rest}");
        assert_eq!((asked.load(Ordering::Relaxed), rig.state("platform/7").as_str()), (1, "fresh"), "{rest}");
    }
}

#[test]
fn an_unreadable_success_may_have_used_up_the_refresh_token() {
    let refused = "{\"status\":\"error\",\"error\":{\"message\":\"Invalid refresh token\"}}";
    let pair = "{\"data\":{\"accessToken\":\"new-access\",\"refreshToken\":\"r1\"}}";
    for recover in [false, true] {
        let (mut rig, upstream, _) = token_endpoint(move |before| match before {
            0 => json("200 OK", "{\"status\":\"success\",\"data\":\"ok\"}"),
            1 => json("400 Bad Request", refused),
            _ => json("200 OK", pair),
        });
        rig.platform = if recover { "recover = \"force-refresh\"" } else { "" };
        rig.ran(&["credentials", "import", "platform", "--managed-user", "7"], RUN_OUT);
        let gateway = rig.start();
        let expected = if recover { 200 } else { 503 };
        eventually("an end of it", || {
            let answer = rig.for_user(&gateway, 7, "GET /v2/me");
            (answer.status == 200 || answer.code() == Some("GATEWAY_CREDENTIAL_NEEDS_LOGIN")).then_some(())
        });
        assert_eq!(rig.for_user(&gateway, 7, "GET /v2/me").status, expected);
        gateway.wait_for_log("no access token that calgate can read");
        let calls: Vec<_> =
            upstream.requests().iter().filter(|a| a.request_line.starts_with("POST")).cloned().collect();
        let force = calls.iter().filter(|call| call.target().ends_with("force-refresh")).count();
        assert_eq!((calls.len(), force), (2 + usize::from(recover), usize::from(recover)));
    }
    // The refresh token of an OAuth grant stays valid, so calgate tries the renewal again.
    let (rig, _upstream, asked) = token_endpoint(|before| match before {
        0 => json("200 OK", "<html>"),
        _ => json("200 OK", "{\"access_token\":\"new-access\"}"),
    });
    rig.ran(&["credentials", "import", "app"], RUN_OUT);
    let gateway = rig.start();
    eventually("a renewal", || (gateway.ask("GET /v2/me", &[]).status == 200).then_some(()));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn five_rejections_without_a_known_reason_need_a_login() {
    for body in ["{\"message\":\"no\",\"statusCode\":400}", "{\"status\":\"error\",\"error\":{\"code\":\"X\"}}", "no"] {
        let (rig, _upstream, asked) = token_endpoint(move |_| json("400 Bad Request", body));
        rig.ran(&["credentials", "import", "app"], RUN_OUT);
        let gateway = rig.start();
        eventually("a name for it", || {
            (gateway.ask("GET /v2/me", &[]).code() == Some("GATEWAY_CREDENTIAL_NEEDS_LOGIN")).then_some(())
        });
        assert_eq!((asked.load(Ordering::Relaxed), rig.state("app").as_str()), (5, "needs-login"), "{body}");
        assert!(gateway.wait_for_log("a credential needs a login").contains("400 Bad Request, 5 times in a row"));
        // An import of new tokens ends this state.
        let pair = "{\"access_token\":\"new-access\",\"refresh_token\":\"r\",\"expires_at\":9999999999}";
        rig.ran(&["credentials", "import", "app"], pair);
        eventually("service", || (gateway.ask("GET /v2/me", &[]).status == 200).then_some(()));
    }
}

const CREATE: &str = "allow_credential_operations = [\"POST /v2/oauth-clients/{clientId}/users\"]";

#[test]
fn new_users_tokens_are_attributed_by_the_response_and_reach_the_client_where_they_are_revealed() {
    let tokens = "\"accessToken\":\"new-access\",\"refreshToken\":\"new-refresh\"";
    let (withheld, shown) = (false, true);
    let table = [
        (format!("{{\"data\":{{{tokens},\"user\":{{\"id\":7}}}}}}"), withheld, 200, true),
        (format!("{{\"data\":{{{tokens},\"userId\":\"7\"}}}}"), withheld, 200, true),
        (format!("{{\"user\":{{\"id\":7}},{tokens},\"note\":\"new-access\"}}"), withheld, 200, true),
        (format!("{{\"data\":{{{tokens}}}}}"), withheld, 502, false),
        (format!("{{\"data\":{{{tokens},\"user\":{{\"id\":7}}}}}}"), shown, 200, true),
        (format!("{{\"data\":{{{tokens}}}}}"), shown, 200, false),
        (format!("[{{{tokens}}}]"), shown, 200, false),
    ];
    for (body, reveal, status, kept) in table {
        let (mut rig, _upstream, _) = token_endpoint({
            let body = body.clone();
            move |_| json("200 OK", &body)
        });
        rig.users = CREATE;
        rig.platform = if reveal { "reveal_tokens = true" } else { "" };
        let gateway = rig.start();
        let key = format!("X-Api-Key: {}", rig.key.text);
        let users = format!("POST /v2/oauth-clients/{DEMO_CLIENT_ID}/users");
        let answer = gateway.connect().ask_with(&users, &[&key, "Content-Type: application/json"], "{}");
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        if reveal {
            assert_eq!(answer.text(), body);
        } else {
            assert!(
                !answer.text().contains("new-access") && !answer.text().contains("new-refresh"),
                "{}",
                answer.text()
            );
        }
        let expected = if kept { "fresh" } else { "none" };
        assert_eq!(rig.state("platform/7"), expected, "{body}");
        if kept {
            assert_eq!(rig.for_user(&gateway, 7, "GET /v2/me").status, 200, "{body}");
        }
    }
}
