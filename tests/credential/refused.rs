//! Requests that Cal.com rejects: a dead token is renewed whatever the status, and a refusal about a resource causes at most one
//! renewal.

use std::time::{Duration, Instant};

use calgate::credential::rejections::Rejections;
use calgate::time::MonoTime;

use super::rig::{Rig, living};
use crate::cal_sim::options::TokenRules;
use crate::harness::{OK, ReceivedRequest, Response, Setup, Upstream};

fn head(target: &str) -> http::request::Parts {
    http::Request::builder().uri(target).body(()).unwrap().into_parts().0
}

fn at(seconds: u64) -> MonoTime {
    MonoTime(seconds * 1_000_000_000)
}

#[test]
fn a_rejection_of_the_renewed_token_is_remembered_until_the_request_succeeds() {
    let refusals = Rejections::default();
    let (here, there) = (refusals.request(&head("/v2/teams/1")), refusals.request(&head("/v2/teams/2")));
    assert!(!refusals.is_lasting(here, 1, true, at(0)));
    refusals.note_renewal(here, 1);
    refusals.note_retry(here, 2, true, at(1));
    assert!(!refusals.is_lasting(here, 2, false, at(2)), "the new token may not be known everywhere yet");
    assert!(refusals.is_lasting(here, 2, true, at(20)));
    assert!(refusals.is_lasting(here, 3, false, at(60)), "whatever token comes next");
    assert!(!refusals.is_lasting(there, 2, true, at(60)), "another resource may well mean the token");
    refusals.note_accepted(here, false);
    assert!(!refusals.is_lasting(here, 3, true, at(400)));
    refusals.note_renewal(here, 3);
    refusals.note_retry(here, 4, false, at(401));
    assert!(!refusals.is_in_use(), "a renewal that helped leaves nothing behind");
}

#[test]
fn new_resources_in_every_request_do_not_cause_a_renewal_each() {
    let refusals = Rejections::default();
    let (mut generation, mut renewals) = (1, 0);
    for second in 0..3600 {
        let request = refusals.request(&head(&format!("/v2/teams/{second}")));
        if !refusals.is_lasting(request, generation, true, at(second)) {
            refusals.note_renewal(request, generation);
            generation += 1;
            renewals += 1;
            refusals.note_retry(request, generation, true, at(second));
        }
    }
    assert!((5..20).contains(&renewals), "{renewals}");
}

#[test]
fn a_rejection_about_the_resource_causes_at_most_one_renewal_and_a_dead_token_another() {
    let rig = Rig::new(living(3600));
    rig.import_app();
    let gateway = rig.start();
    assert_eq!(gateway.ask("GET /v2/me", &[]).status, 200);
    // The loop runs longer than the ten seconds for which a token counts as new.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(11_500) {
        let answer = gateway.ask("GET /v2/teams?sim_status=401", &[]);
        assert_eq!((answer.status, answer.code()), (401, None), "{}", answer.text());
        assert_eq!(gateway.ask("GET /v2/me", &[]).status, 200);
    }
    assert_eq!(rig.sim.token_counts().oauth_refreshes, 1);
    let seen = rig.sim.seen();
    let token = seen.iter().rev().find_map(|seen| seen.header("authorization")).unwrap();
    rig.sim.revoke(&token["Bearer ".len()..]);
    assert_eq!(gateway.ask("GET /v2/me", &[]).status, 200, "another refusal is about the token");
    assert_eq!(rig.sim.token_counts().oauth_refreshes, 2);
}

/// Sends a request with a body for a managed user, and returns the response.
fn for_user(rig: &Rig, gateway: &crate::harness::Gateway, user: u64, request: &str, body: &str) -> Response {
    let fields = [
        format!("X-Api-Key: {}", rig.key.text),
        format!("x-calgate-managed-user: {user}"),
        "Content-Type: application/json".to_owned(),
    ];
    gateway.connect().ask_with(request, &[&fields[0], &fields[1], &fields[2]], body)
}

#[test]
fn a_dead_token_that_is_answered_403_is_renewed_and_the_request_is_sent_again() {
    let rig = Rig::new(TokenRules::default());
    let (user, pair) = rig.import_user();
    let gateway = rig.start();
    assert_eq!(rig.for_user(&gateway, user, "GET /v2/me").status, 200);
    // Another back end's refresh deletes the tokens that have expired (FACTS §1).
    rig.sim.advance(Duration::from_secs(3600));
    rig.sim.revoke(&pair.access);
    let answer = for_user(&rig, &gateway, user, "POST /v2/event-types", "{\"title\":\"x\"}");
    assert_eq!((answer.status, answer.json()["data"]["bodyLength"].as_u64()), (200, Some(13)), "{}", answer.text());
    let counts = rig.sim.token_counts();
    assert_eq!((counts.managed_refreshes, counts.refused), (1, 0));
    let guarded: Vec<_> = rig.sim.seen().iter().filter(|s| s.target == "/v2/event-types").map(|s| s.status).collect();
    assert_eq!(guarded, [Some(403), Some(200)]);
    // calgate also renews the dead token of an OAuth grant.
    let app = rig.import_app();
    crate::harness::eventually("the grant", || (gateway.ask("GET /v2/me", &[]).status == 200).then_some(()));
    rig.sim.revoke(&app.access);
    assert_eq!(gateway.ask("GET /v2/bookings", &["Accept-Encoding: gzip"]).status, 200);
    assert_eq!(rig.sim.token_counts().oauth_refreshes, 1);
}

/// A gateway for callers with credentials of their own, in front of `upstream`.
fn passthrough(upstream: &Upstream) -> crate::harness::Gateway {
    let section = "[tiers.roomy]\nrequests_per_minute = 100000\n\
                   [passthrough]\nenabled = true\nplan = \"unrestricted\"\ntier = \"roomy\"";
    Setup::to(&upstream.base_url()).with("[budget]\nmode = \"off\"").with(section).start()
}

fn error(status: &str, message: &str) -> Vec<u8> {
    let body = format!("{{\"status\":\"error\",\"error\":{{\"code\":\"X\",\"message\":\"{message}\"}}}}");
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

#[test]
fn only_the_exact_message_with_the_sent_token_means_that_it_is_dead() {
    let upstream = Upstream::answering(|asked: &ReceivedRequest| {
        let token = asked.headers("authorization")[0]["Bearer ".len()..].to_owned();
        let guard = "PermissionsGuard - no oAuth client found for access token=";
        match asked.target() {
            "/v2/me?other" => error("403 Forbidden", &format!("{guard}another.token.here")),
            "/v2/me?longer" => error("403 Forbidden", &format!("{guard}{token}x")),
            "/v2/me?plain" => error("403 Forbidden", &format!("not allowed for {token}")),
            _ => error("403 Forbidden", &format!("{guard}{token}")),
        }
    });
    let gateway = passthrough(&upstream);
    let ask = |n: usize, target: &str| {
        gateway.ask(&format!("GET {target}"), &[&format!("Authorization: Bearer a{n}a.bb.cc")])
    };
    for target in ["/v2/me?other", "/v2/me?longer", "/v2/me?plain"] {
        let statuses: Vec<_> = (0..40).map(|n| ask(n, target).status).collect();
        assert_eq!(statuses, [403; 40], "{target}");
    }
    let dead: Vec<_> = (0..40).map(|n| ask(n, "/v2/bookings")).collect();
    assert!(dead.iter().all(|answer| !answer.text().contains("a.bb.cc")), "the token stays here");
    assert_eq!(dead[39].code(), Some("GATEWAY_TOO_MANY_FAILURES"), "dead tokens are guesses on these operations too");
}

#[test]
fn a_credential_that_cal_com_has_accepted_does_not_count_as_a_guess() {
    let upstream = Upstream::answering(|asked: &ReceivedRequest| {
        let is_good = asked.headers("authorization")[0].contains("good");
        match asked.target() {
            "/v2/slots" => OK.into(),
            "/v2/me" if is_good => OK.into(),
            _ => error("401 Unauthorized", "Organization ID not found"),
        }
    });
    let gateway = passthrough(&upstream);
    let ask =
        |target: &str, token: &str| gateway.ask(&format!("GET {target}"), &[&format!("Authorization: Bearer {token}")]);
    let (good, other) = ("cal_good_0123456789", "cal_good_9876543210");
    assert_eq!([ask("/v2/me", good).status, ask("/v2/me", other).status], [200, 200]);
    for _ in 0..60 {
        assert_eq!(ask("/v2/teams", good).status, 401, "Cal.com's own answer");
    }
    assert_eq!(ask("/v2/me", other).status, 200);
    // A public operation does not prove that Cal.com accepts the credential.
    for n in 0..60 {
        let made_up = format!("cal_made_up_{n:08}");
        let _ = (ask("/v2/slots", &made_up), ask("/v2/teams", &made_up));
    }
    assert_eq!(ask("/v2/teams", "cal_made_up_again_00").code(), Some("GATEWAY_TOO_MANY_FAILURES"));
    assert_eq!([ask("/v2/me", good).status, ask("/v2/me", other).status], [200, 200], "from the same address");
}
