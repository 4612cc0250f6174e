//! Managed users: permissions of callers, and pairs whose refresh token works once.

use std::time::Duration;

use calgate::catalog::{Accepts, Catalog};

use super::rig::{OTHER_SEAL_KEY, Rig, json, limited, living};
use crate::cal_sim::options::{DEMO_CLIENT_ID, TokenRules};
use crate::harness::{RawConnection, Redis, eventually};

#[test]
fn the_named_users_token_goes_upstream_and_the_header_does_not() {
    let rig = Rig::new(TokenRules::default());
    let ((one, of_one), (two, of_two)) = (rig.import_user(), rig.import_user());
    let gateway = rig.start();
    for (user, pair) in [(one, &of_one), (two, &of_two), (one, &of_one)] {
        rig.sim.forget();
        assert_eq!(rig.for_user(&gateway, user, "GET /v2/me").status, 200);
        let seen = rig.sim.seen().remove(0);
        assert_eq!(seen.header("authorization").unwrap(), format!("Bearer {}", pair.access));
        assert!(!seen.headers.iter().any(|(name, _)| name.starts_with("x-calgate") || name.starts_with("x-cal-s")));
    }
    // calgate sends client headers if the operation accepts only those.
    let answer = rig.for_user(&gateway, one, &format!("GET /v2/oauth-clients/{DEMO_CLIENT_ID}/users"));
    assert_eq!(answer.json()["data"]["credential"], "platform-client");
    assert_eq!(rig.for_user(&gateway, one, "GET /v2/bookings").json()["data"]["credential"], "managed-user");
}

#[test]
fn every_operation_gets_a_credential_kind_that_it_accepts() {
    let rig = Rig::new(TokenRules::default());
    let (user, _) = rig.import_user();
    let gateway = rig.start();
    let (key, whom) = (format!("X-Api-Key: {}", rig.key.text), format!("x-calgate-managed-user: {user}"));
    let mut connection = gateway.connect();
    let mut asked = std::collections::BTreeMap::<_, usize>::new();
    let operations = Catalog::built_in().endpoints().iter().filter(|endpoint| !endpoint.credential_operation);
    for endpoint in operations.filter(|endpoint| endpoint.tag.as_str() != "OAuth2") {
        let filled = |part| match part {
            "{clientId}" => DEMO_CLIENT_ID,
            part if str::starts_with(part, '{') => "7",
            literal => literal,
        };
        let path: Vec<_> = endpoint.template.as_str().split('/').map(filled).collect();
        let request = format!("{} {}", endpoint.method, path.join("/"));
        let version = endpoint.api_version.as_ref().or(endpoint.api_versions.first());
        let version = version.map_or("Accept: */*".to_owned(), |own| format!("cal-api-version: {}", own.as_str()));
        let answer = connection.ask(&request, &[&key, &whom, &version]);
        let expected = if endpoint.accepts == Accepts::Client { "platform-client" } else { "managed-user" };
        assert_eq!(answer.json()["data"]["credential"], expected, "{endpoint}: {}", answer.text());
        *asked.entry(endpoint.accepts.name()).or_default() += 1;
    }
    assert!(asked["bearer"] > 100 && asked["either"] >= 90 && asked["client"] >= 10, "{asked:?}");
}

#[test]
fn a_request_that_cannot_be_sent_for_a_user_costs_nothing() {
    let mut rig = Rig::new(TokenRules::default());
    rig.users = "managed_users = [1]";
    let gateway = rig.start();
    let key = format!("X-Api-Key: {}", rig.key.text);
    let table = [
        (rig.for_user(&gateway, 2, "GET /v2/me"), "GATEWAY_MANAGED_USER_NOT_ALLOWED"),
        (gateway.ask("GET /v2/me", &[&key]), "GATEWAY_CREDENTIAL_UNSUITABLE"),
    ];
    for (answer, code) in table {
        let [limit, left] = ["limit", "remaining"].map(|what| answer.header(&format!("x-ratelimit-{what}-default")));
        assert_eq!((answer.code(), left), (Some(code), limit), "{}", answer.text());
        assert!(limit.is_some());
    }
}

#[test]
fn the_permission_to_act_for_a_user_is_checked_before_anything_is_sent() {
    let mut rig = Rig::new(TokenRules::default());
    let (one, _) = rig.import_user();
    let (two, _) = rig.import_user();
    rig.users = "managed_users = [1, \"77\"]";
    let gateway = rig.start();
    let key = format!("X-Api-Key: {}", rig.key.text);
    assert_eq!(rig.for_user(&gateway, one, "GET /v2/me").status, 200);
    rig.sim.forget();
    let table = [
        (rig.for_user(&gateway, two, "GET /v2/me"), 403, "GATEWAY_MANAGED_USER_NOT_ALLOWED"),
        (rig.for_user(&gateway, 77, "GET /v2/me"), 404, "GATEWAY_UNKNOWN_MANAGED_USER"),
        (gateway.ask("GET /v2/me", &["x-calgate-managed-user: 1"]), 400, "GATEWAY_BAD_REQUEST"),
        (gateway.ask("GET /v2/me", &[&key, "x-calgate-managed-user: 01"]), 400, "GATEWAY_BAD_REQUEST"),
        (gateway.ask("GET /v2/me", &[&key, "x-calgate-managed-user: me"]), 400, "GATEWAY_BAD_REQUEST"),
        (
            gateway.ask("GET /v2/me", &[&key, "x-calgate-managed-user: 1", "x-calgate-managed-user: 2"]),
            400,
            "GATEWAY_BAD_REQUEST",
        ),
    ];
    for (answer, status, code) in table {
        assert_eq!((answer.status, answer.code()), (status, Some(code)), "{}", answer.text());
    }
    assert_eq!(rig.sim.seen_count(), 0);
}

#[test]
fn single_use_pairs_are_renewed_without_a_caller_noticing() {
    for lag in [0, 300] {
        let rig = Rig::new(TokenRules { lag: Duration::from_millis(lag), ..living(4) });
        let (user, _) = rig.import_user();
        let replicas = [rig.start(), rig.start(), rig.start()];
        let mut turn = 0;
        eventually("renewals", || {
            turn += 1;
            let answer = rig.for_user(&replicas[turn % 3], user, "GET /v2/me");
            assert_eq!(answer.status, 200, "{}", answer.text());
            (rig.sim.token_counts().managed_refreshes >= 3).then_some(())
        });
        assert_eq!(rig.sim.token_counts().refused, 0);
        assert_eq!(rig.sim.token_counts().force_refreshes, 0);
    }
}

#[test]
fn an_expired_token_is_never_shown_to_a_caller_and_a_small_body_is_sent_again() {
    let rig = Rig::new(TokenRules { managed_access: Duration::from_secs(3600), ..TokenRules::default() });
    let (user, _) = rig.import_user();
    let gateway = rig.start();
    assert_eq!(rig.for_user(&gateway, user, "GET /v2/me").status, 200);
    let key = format!("X-Api-Key: {}", rig.key.text);
    let whom = format!("x-calgate-managed-user: {user}");
    let post = |body: &str| {
        rig.sim.advance(Duration::from_secs(3700));
        gateway.connect().ask_with("POST /v2/bookings", &[&key, &whom, "Content-Type: application/json"], body)
    };
    let small = post(&format!("{{\"x\":\"{}\"}}", "y".repeat(60_000)));
    assert_eq!((small.status, small.json()["data"]["bodyLength"].as_u64()), (200, Some(60_008)));
    assert_eq!(rig.sim.token_counts().managed_refreshes, 1);
}

#[test]
fn a_request_that_is_sent_again_is_charged_once_where_buckets_are_shared() {
    let rig = Rig::new(TokenRules { managed_access: Duration::from_secs(3600), ..TokenRules::default() });
    let redis = Redis::start();
    let (user, _) = rig.import_user();
    let gateway = rig.setup().with(&format!("[limit_store]\nredis = \"{}\"\n", redis.url())).start();
    // The bucket regains one token in ten seconds, so the next response shows each charge.
    gateway.reload(|text| text.replace("requests_per_minute = 1000000", "requests_per_minute = 6"));
    let remaining = || {
        let answer = rig.for_user(&gateway, user, "GET /v2/me");
        let left = answer.header("x-ratelimit-remaining-default").unwrap().parse::<u32>().unwrap();
        (answer.status, left)
    };
    let (status, before) = remaining();
    rig.sim.advance(Duration::from_secs(3700));
    let (again, _) = remaining();
    assert_eq!((status, again, rig.sim.token_counts().managed_refreshes), (200, 200, 1));
    // A second charge would come after the count in its own response, so the next response would show it.
    let (_, after) = remaining();
    assert!(after + 2 >= before, "{before} before it, {after} after it and another");
}

#[test]
fn a_large_body_is_not_buffered_and_the_response_asks_the_caller_to_retry() {
    let rig = Rig::new(TokenRules { managed_access: Duration::from_secs(3600), ..TokenRules::default() });
    let (user, _) = rig.import_user();
    let gateway = rig.start();
    assert_eq!(rig.for_user(&gateway, user, "GET /v2/me").status, 200);
    rig.sim.revoke(&rig.sim.seen()[0].header("authorization").unwrap()["Bearer ".len()..]);
    // The token is imported, so its refusal leads to a renewal at once. After a renewal, calgate would try the same token again.
    let key = format!("X-Api-Key: {}", rig.key.text);
    let whom = format!("x-calgate-managed-user: {user}");
    let body = format!("{{\"x\":\"{}\"}}", "y".repeat(80_000));
    let post =
        || gateway.connect().ask_with("POST /v2/bookings", &[&key, &whom, "Content-Type: application/json"], &body);
    let refused = post();
    assert_eq!((refused.status, refused.code()), (503, Some("GATEWAY_CREDENTIAL_REFUSED")));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(post().status, 200);
}

#[test]
fn a_user_without_tokens_is_recovered_if_that_is_allowed() {
    let mut rig = Rig::new(TokenRules::default());
    let (user, _) = rig.sim.new_managed_user(DEMO_CLIENT_ID);
    {
        let gateway = rig.start();
        let answer = rig.for_user(&gateway, user, "GET /v2/me");
        assert_eq!((answer.status, answer.code()), (404, Some("GATEWAY_UNKNOWN_MANAGED_USER")));
    }
    rig.platform = "recover = \"force-refresh\"";
    let gateway = rig.start();
    assert_eq!(rig.for_user(&gateway, user, "GET /v2/me").status, 200);
    assert_eq!(rig.for_user(&gateway, user, "GET /v2/me").status, 200);
    assert_eq!(rig.sim.token_counts().force_refreshes, 1);
    // A user whom Cal.com does not know gets no record.
    let answer = rig.for_user(&gateway, 999, "GET /v2/me");
    assert_eq!((answer.status, answer.code()), (404, Some("GATEWAY_UNKNOWN_MANAGED_USER")));
    assert_eq!(rig.state("platform/999"), "none");
}

#[test]
fn imports_are_checked_and_never_repeated() {
    let key = "[credentials.key]\nkind = \"api-key\"\napi_key = { env = \"OAUTH_SECRET\" }\nplan = \"teams\"\n";
    let rig = Rig { platform: key, ..Rig::new(TokenRules::default()) };
    let (_, pair) = rig.sim.new_managed_user(DEMO_CLIENT_ID);
    let table = [
        (vec!["app", "--managed-user", "1"], json(&pair), "has no managed users"),
        (vec!["platform"], json(&pair), "name a --managed-user"),
        (vec!["platform", "--managed-user", "0"], json(&pair), "invalid id of a managed user"),
        (vec!["key"], json(&pair), "the configuration contains the API key"),
        (vec!["nobody"], json(&pair), "unknown credential `nobody`"),
        (vec!["app"], "{\"access_token\": \"canary-1\"".to_owned(), "it has to be JSON"),
        (vec!["app"], "{\"access_token\": \"canary 2\"}".to_owned(), "a blank"),
        (vec!["app"], "{\"access_token\": \"x\", \"canary\": 3}".to_owned(), "and nothing else"),
    ];
    for (which, input, expected) in table {
        let said = rig.refused(&[vec!["credentials", "import"], which].concat(), &input);
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains("canary"), "{said}");
    }
}

#[test]
fn the_token_of_each_user_has_a_budget_of_its_own() {
    let rig = Rig { budget: "", ..Rig::at(limited(TokenRules::default(), Some(5))) };
    let ((one, _), (two, _)) = (rig.import_user(), rig.import_user());
    let gateway = rig.start();
    for user in [one, two] {
        let mut answers = (0..6).map(|_| rig.for_user(&gateway, user, "GET /v2/me"));
        assert!(answers.by_ref().take(5).all(|answer| answer.status == 200));
        assert_eq!(answers.next().unwrap().code(), Some("GATEWAY_UPSTREAM_BUDGET"));
    }
    assert_eq!(rig.sim.rate_limited(), 0);
}

#[test]
fn a_renewal_counts_in_the_budget_of_its_client() {
    let rig = Rig { budget: "", ..Rig::at(limited(living(0), Some(3))) };
    let (user, _) = rig.import_user();
    let gateway = rig.start();
    let users = format!("GET /v2/oauth-clients/{DEMO_CLIENT_ID}/users");
    let asks = || gateway.ask(&users, &[&format!("X-Api-Key: {}", rig.key.text)]);
    let held = (0..4).map(|_| asks()).find(|answer| answer.status != 200).unwrap();
    assert_eq!(held.code(), Some("GATEWAY_UPSTREAM_BUDGET"));
    // Callers have used up the budget, so the gateway cannot renew the token.
    let answer = rig.for_user(&gateway, user, "GET /v2/me");
    assert_eq!(answer.code(), Some("GATEWAY_CREDENTIAL_UNAVAILABLE"), "{}", answer.text());
    assert_eq!((rig.sim.token_counts().refused, rig.sim.rate_limited()), (0, 0));
}

/// Input of an import, for a pair whose access token has expired.
fn run_out(refresh: &str) -> String {
    format!("{{\"access_token\":\"run-out\",\"refresh_token\":\"{refresh}\",\"expires_at\":1}}")
}

#[test]
fn a_start_renews_only_users_for_whom_callers_act() {
    for recover in ["", "recover = \"force-refresh\""] {
        let mut rig = Rig { platform: recover, ..Rig::new(TokenRules::default()) };
        let import = |rig: &Rig, user: u64, tokens: &str| {
            rig.ran(&["credentials", "import", "platform", "--managed-user", &user.to_string()], tokens);
        };
        let users: Vec<_> = (0..5).map(|_| rig.sim.new_managed_user(DEMO_CLIENT_ID)).collect();
        for (user, pair) in &users {
            import(&rig, *user, &run_out(&pair.refresh));
        }
        let (stale, elsewhere) = rig.sim.new_managed_user(DEMO_CLIENT_ID);
        import(&rig, stale, &run_out("used-up"));
        // This record is the last in the order of the store. The gateway logs that it cannot open the record.
        rig.environment.push(("SEAL_KEY".to_owned(), OTHER_SEAL_KEY.to_owned()));
        import(&rig, 999, &run_out("x"));
        rig.environment.clear();
        let gateway = rig.start();
        gateway.wait_for_log("the stored record of `platform/999` cannot be used");
        assert_eq!(rig.for_user(&gateway, users[4].0, "GET /v2/me").status, 200);
        let counts = rig.sim.token_counts();
        assert_eq!((counts.managed_refreshes, counts.refused, counts.force_refreshes), (1, 0, 0));
        let bearer = format!("Authorization: Bearer {}", elsewhere.access);
        assert_eq!(
            RawConnection::connect(rig.sim.address()).ask("GET /v2/me", &[&bearer]).status,
            200,
            "a session elsewhere"
        );
        // A caller acts for the user with the stale pair.
        let expected = if recover.is_empty() { 503 } else { 200 };
        assert_eq!(rig.for_user(&gateway, stale, "GET /v2/me").status, expected);
        assert_eq!(rig.sim.token_counts().force_refreshes, u64::from(!recover.is_empty()));
    }
}

#[test]
fn a_lost_user_is_recovered_when_that_is_allowed_and_a_caller_acts_for_it() {
    let mut rig = Rig::new(TokenRules::default());
    let (user, _) = rig.sim.new_managed_user(DEMO_CLIENT_ID);
    let name = format!("platform/{user}");
    rig.ran(&["credentials", "import", "platform", "--managed-user", &user.to_string()], &run_out("used-up"));
    let answer = rig.for_user(&rig.start(), user, "GET /v2/me");
    assert_eq!(answer.code(), Some("GATEWAY_CREDENTIAL_NEEDS_LOGIN"));
    assert_eq!(rig.state(&name), "needs-login");
    rig.platform = "recover = \"force-refresh\"";
    assert_eq!(rig.for_user(&rig.start(), user, "GET /v2/me").status, 200);
    assert_eq!((rig.state(&name).as_str(), rig.sim.token_counts().force_refreshes), ("fresh", 1));
}

#[test]
fn a_wrong_client_secret_costs_no_user_its_tokens() {
    for recover in ["", "recover = \"force-refresh\""] {
        let rig = Rig { platform: recover, ..Rig::new(TokenRules::default()) };
        let (user, pair) = rig.sim.new_managed_user(DEMO_CLIENT_ID);
        let name = format!("platform/{user}");
        rig.ran(&["credentials", "import", "platform", "--managed-user", &user.to_string()], &run_out(&pair.refresh));
        {
            let gateway = rig.setup().env("CLIENT_SECRET", "the-one-before").start();
            let answer = rig.for_user(&gateway, user, "GET /v2/me");
            assert_eq!((answer.status, answer.code()), (503, Some("GATEWAY_CREDENTIAL_UNAVAILABLE")));
            let line = gateway.wait_for_log("cannot renew a credential");
            assert!(line.contains("refused the client's id or secret (401"), "{line}");
            let ready = gateway.ask_admin("GET /readyz", &[]).text();
            assert!(ready.contains(&format!("credential {name}: unavailable")), "{ready}");
        }
        assert_ne!(rig.state(&name), "needs-login");
        assert_eq!(rig.for_user(&rig.start(), user, "GET /v2/me").status, 200);
        let counts = rig.sim.token_counts();
        assert_eq!((counts.managed_refreshes, counts.force_refreshes), (1, 0), "its refresh token is used, once");
    }
}

#[test]
fn only_lost_users_are_reported_among_unused_ones_and_imports_for_them_are_loaded() {
    let rig = Rig::new(TokenRules::default());
    let ((idle, pair), (lost, _)) =
        (rig.sim.new_managed_user(DEMO_CLIENT_ID), rig.sim.new_managed_user(DEMO_CLIENT_ID));
    let import = |user: u64, tokens: &str| {
        rig.ran(&["credentials", "import", "platform", "--managed-user", &user.to_string()], tokens);
    };
    import(idle, &run_out(&pair.refresh));
    import(lost, &run_out("used-up"));
    assert_eq!(rig.for_user(&rig.start(), lost, "GET /v2/me").status, 503);
    let gateway = rig.start();
    let ready = || gateway.ask_admin("GET /readyz", &[]).text();
    let named = format!("ready\ncredential app: needs-login\ncredential platform/{lost}: needs-login\n");
    eventually("the lost one named", || (ready() == named).then_some(()));
    assert_eq!(gateway.metric("calgate_credentials", "credential=\"platform/"), 1);
    import(lost, &json(&rig.sim.new_managed_user(DEMO_CLIENT_ID).1));
    eventually("its new tokens", || (ready() == "ready\ncredential app: needs-login\n").then_some(()));
    assert_eq!(gateway.metric("calgate_credentials", "credential=\"platform/"), 0);
    assert_eq!(rig.for_user(&gateway, lost, "GET /v2/me").status, 200);
    assert_eq!(rig.sim.token_counts().managed_refreshes, 0);
    // An expired token without a refresh token makes the gateway report `needs-login`.
    import(idle, "{\"access_token\":\"run-out\",\"expires_at\":1}");
    drop(gateway);
    let gateway = rig.start();
    let named = format!("platform/{idle}: needs-login");
    let ready = || gateway.ask_admin("GET /readyz", &[]).text();
    eventually("the idle one named", || ready().contains(&named).then_some(()));
}

#[test]
fn the_limit_of_a_users_token_is_configured() {
    let mut rig = Rig::at(limited(TokenRules::default(), Some(500)));
    rig.platform = "managed_user_requests_per_minute = 5";
    rig.budget = "max_wait = \"1ms\"";
    let ((one, _), (two, _)) = (rig.import_user(), rig.import_user());
    let gateway = rig.start();
    let codes = |user, times| {
        (0..times).map(|_| rig.for_user(&gateway, user, "GET /v2/me").status).filter(|status| *status == 200).count()
    };
    assert_eq!((codes(one, 8), codes(two, 3), codes(one, 1)), (5, 3, 0), "each user's token by itself");
    assert_eq!(rig.sim.rate_limited(), 0);
}
