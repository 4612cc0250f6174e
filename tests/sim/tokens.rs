//! Tokens of the simulated Cal.com: OAuth, and managed users with single-use refresh tokens.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cal_sim::options::{
    DEMO_API_KEY, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, DEMO_OAUTH_CLIENT_ID, DEMO_OAUTH_SECRET, DEMO_PUBLIC_CLIENT_ID,
};
use crate::cal_sim::{Options, Sim};
use crate::harness::{RawConnection, Response};

fn ask(sim: &Sim, request: &str, headers: &[&str], body: &str) -> Response {
    RawConnection::connect(sim.address()).ask_with(request, headers, body)
}

/// Returns the status of a request with a bearer token.
fn me(sim: &Sim, token: &str) -> u16 {
    ask(sim, "GET /v2/me", &[&format!("Authorization: Bearer {token}")], "").status
}

fn oauth(sim: &Sim, fields: &str) -> (u16, Value) {
    let answer = ask(sim, "POST /v2/auth/oauth2/token", &["Content-Type: application/x-www-form-urlencoded"], fields);
    (answer.status, answer.json())
}

/// Returns the status and the data of a request for the tokens of a managed user.
fn managed(sim: &Sim, path: &str, body: &Value) -> (u16, Value) {
    let secret = format!("x-cal-secret-key: {DEMO_CLIENT_SECRET}");
    let answer = ask(sim, &format!("POST {path}"), &[&secret, "Content-Type: application/json"], &body.to_string());
    (answer.status, answer.json()["data"].clone())
}

fn refresh_managed(sim: &Sim, token: &str) -> (u16, Value) {
    managed(sim, &format!("/v2/oauth/{DEMO_CLIENT_ID}/refresh"), &json!({ "refreshToken": token }))
}

/// Returns a code from the authorize page. Checks the state in the redirect.
fn code(sim: &Sim, client: &str, more: &str) -> String {
    let query = format!("client_id={client}&redirect_uri=http%3A%2F%2F127.0.0.1%3A9%2Fback&state=s1{more}");
    let answer = ask(sim, &format!("GET /auth/oauth2/authorize?{query}"), &[], "");
    assert_eq!(answer.status, 302, "{}", answer.text());
    let location = answer.header("location").unwrap();
    let code = location.strip_prefix("http://127.0.0.1:9/back?code=").and_then(|rest| rest.strip_suffix("&state=s1"));
    code.unwrap_or_else(|| panic!("{location}")).to_owned()
}

const BACK: &str = "redirect_uri=http%3A%2F%2F127.0.0.1%3A9%2Fback";

#[test]
fn a_confidential_client_exchanges_a_code_once() {
    let sim = Sim::start(Options::default()).unwrap();
    let code = code(&sim, DEMO_OAUTH_CLIENT_ID, "");
    let exchange = |secret: &str| {
        let client = format!("client_id={DEMO_OAUTH_CLIENT_ID}&client_secret={secret}");
        oauth(&sim, &format!("grant_type=authorization_code&{client}&code={code}&{BACK}"))
    };
    assert_eq!(exchange("wrong"), (401, exchange("wrong").1));
    let (status, pair) = exchange(DEMO_OAUTH_SECRET);
    assert_eq!((status, pair["expires_in"].as_u64(), pair["token_type"].as_str()), (200, Some(1800), Some("bearer")));
    assert_eq!(me(&sim, pair["access_token"].as_str().unwrap()), 200);
    assert_eq!(exchange(DEMO_OAUTH_SECRET).0, 400, "a code is good once");
    assert_eq!(sim.token_counts().code_exchanges, 1);
}

#[test]
fn a_public_client_authenticates_with_its_verifier() {
    let sim = Sim::start(Options::default()).unwrap();
    // RFC 7636, appendix B.
    let (verifier, challenge) =
        ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    let exchange = |verifier: &str| {
        let code =
            code(&sim, DEMO_PUBLIC_CLIENT_ID, &format!("&code_challenge={challenge}&code_challenge_method=S256"));
        let client = format!("client_id={DEMO_PUBLIC_CLIENT_ID}&code_verifier={verifier}");
        oauth(&sim, &format!("grant_type=authorization_code&{client}&code={code}&{BACK}")).0
    };
    assert_eq!(exchange("another-verifier"), 400);
    assert_eq!(exchange(verifier), 200);
}

#[test]
fn an_oauth_refresh_token_can_be_used_until_it_expires() {
    let mut options = Options::default();
    options.tokens.leave_out_expires_in = true;
    let sim = Sim::start(options).unwrap();
    let pair = sim.new_oauth_grant(DEMO_OAUTH_CLIENT_ID);
    let refresh = || {
        let client = format!("client_id={DEMO_OAUTH_CLIENT_ID}&client_secret={DEMO_OAUTH_SECRET}");
        oauth(&sim, &format!("grant_type=refresh_token&{client}&refresh_token={}", pair.refresh))
    };
    let (status, new) = refresh();
    assert_eq!((status, new.get("expires_in")), (200, None));
    assert_eq!((refresh().0, me(&sim, &pair.access)), (200, 200));
    sim.advance(Duration::from_secs(31 * 60));
    assert_eq!((me(&sim, &pair.access), refresh().0), (401, 200));
    sim.advance(Duration::from_secs(30 * 24 * 3600));
    assert_eq!(refresh().0, 400);
    assert_eq!(sim.token_counts().oauth_refreshes, 3);
}

#[test]
fn a_managed_users_refresh_token_can_be_used_once() {
    let sim = Sim::start(Options::default()).unwrap();
    let users = format!("/v2/oauth-clients/{DEMO_CLIENT_ID}/users");
    let (status, first) = managed(&sim, &users, &json!({ "email": "a@example.com", "name": "A" }));
    assert_eq!((status, first["user"]["id"].as_u64()), (200, Some(1)));
    assert_eq!(first["accessTokenExpiresAt"].as_u64().unwrap() % 60_000, 0, "rounded down to the minute");
    let token = |pair: &Value, name: &str| pair[name].as_str().unwrap().to_owned();
    let (status, second) = refresh_managed(&sim, &token(&first, "refreshToken"));
    assert_eq!(status, 200);
    assert_eq!(refresh_managed(&sim, &token(&first, "refreshToken")).0, 400, "it was used");
    assert_eq!(me(&sim, &token(&first, "accessToken")), 200, "the old access token stays");
    assert_eq!(me(&sim, &token(&second, "accessToken")), 200);
    sim.advance(Duration::from_secs(3600));
    assert_eq!(me(&sim, &token(&second, "accessToken")), 498);
    let counts = sim.token_counts();
    assert_eq!((counts.managed_users, counts.managed_refreshes, counts.refused), (1, 1, 1));
}

#[test]
fn any_refresh_deletes_the_expired_access_tokens_of_the_client() {
    let sim = Sim::start(Options::default()).unwrap();
    let ((_, dead), (_, other)) = (sim.new_managed_user(DEMO_CLIENT_ID), sim.new_managed_user(DEMO_CLIENT_ID));
    let bookings = |token: &str| {
        let fields = [&*format!("Authorization: Bearer {token}"), "cal-api-version: 2024-08-13"];
        let answer = ask(&sim, "GET /v2/bookings", &fields, "");
        (answer.status, answer.text().contains(token))
    };
    sim.advance(Duration::from_secs(3600));
    assert_eq!((me(&sim, &dead.access), bookings(&dead.access)), (498, (498, false)), "while its row exists");
    assert_eq!(refresh_managed(&sim, &other.refresh).0, 200);
    assert_eq!((me(&sim, &dead.access), bookings(&dead.access)), (401, (403, true)));
    sim.advance(Duration::from_secs(400 * 24 * 3600));
    assert_eq!(refresh_managed(&sim, &dead.refresh).0, 200, "the expiry of a refresh token is never checked");
}

#[test]
fn a_confidential_client_may_not_send_a_verifier() {
    let sim = Sim::start(Options::default()).unwrap();
    let code = code(&sim, DEMO_OAUTH_CLIENT_ID, "");
    let client = format!("client_id={DEMO_OAUTH_CLIENT_ID}&client_secret={DEMO_OAUTH_SECRET}");
    let (status, said) =
        oauth(&sim, &format!("grant_type=authorization_code&{client}&code={code}&code_verifier=x&{BACK}"));
    assert_eq!((status, said["error"].as_str()), (400, Some("invalid_request")));
    assert_eq!(said["error_description"], "property code_verifier should not exist");
}

#[test]
fn force_refresh_ends_all_other_tokens_of_that_user_only() {
    let sim = Sim::start(Options::default()).unwrap();
    let (user, first) = sim.new_managed_user(DEMO_CLIENT_ID);
    let (_, other) = sim.new_managed_user(DEMO_CLIENT_ID);
    let force = |user: u64| {
        managed(&sim, &format!("/v2/oauth-clients/{DEMO_CLIENT_ID}/users/{user}/force-refresh"), &json!({}))
    };
    let (status, new) = force(user);
    assert_eq!((status, me(&sim, new["accessToken"].as_str().unwrap())), (200, 200));
    assert_eq!((me(&sim, &first.access), refresh_managed(&sim, &first.refresh).0), (401, 400));
    assert_eq!(me(&sim, &other.access), 200);
    assert_eq!(force(77).0, 404);
}

#[test]
fn a_request_with_a_lost_response_has_taken_effect() {
    let sim = Sim::start(Options::default()).unwrap();
    let (_, pair) = sim.new_managed_user(DEMO_CLIENT_ID);
    sim.lose_next_token_answers(1);
    let body = json!({ "refreshToken": pair.refresh }).to_string();
    let request = format!(
        "POST /v2/oauth/{DEMO_CLIENT_ID}/refresh HTTP/1.1\r\nHost: x\r\nx-cal-secret-key: {DEMO_CLIENT_SECRET}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(RawConnection::connect(sim.address()).send(request).read_to_end(), b"");
    assert_eq!(sim.token_counts().managed_refreshes, 1);
    assert_eq!(refresh_managed(&sim, &pair.refresh).0, 400);
}

#[test]
fn a_new_token_can_be_unknown_at_first() {
    let mut options = Options::default();
    (options.tokens.lag, options.tokens.lag_uses) = (Duration::from_secs(2), 2);
    let sim = Sim::start(options).unwrap();
    let (_, pair) = sim.new_managed_user(DEMO_CLIENT_ID);
    assert_eq!(me(&sim, &pair.access), 401, "too early, and the first use");
    sim.advance(Duration::from_secs(3));
    assert_eq!((me(&sim, &pair.access), me(&sim, &pair.access)), (401, 200));
}

#[test]
fn a_refreshed_api_key_replaces_the_key_of_the_request() {
    let sim = Sim::start(Options::default()).unwrap();
    let refresh = |key: &str| ask(&sim, "POST /v2/api-keys/refresh", &[&format!("Authorization: Bearer {key}")], "{}");
    let new = refresh(DEMO_API_KEY).json()["data"]["apiKey"].as_str().unwrap().to_owned();
    assert!(new.starts_with("cal_live_"));
    assert_eq!((me(&sim, DEMO_API_KEY), me(&sim, &new)), (401, 200));
    assert_eq!(refresh(DEMO_API_KEY).status, 401);
    sim.revoke(&new);
    assert_eq!(me(&sim, &new), 401);
}
