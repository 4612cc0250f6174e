//! API keys that a client refreshed: each replaces the configured key from which it was made, and no other.

use super::rig::{Rig, SEAL_KEY, json};
use crate::cal_sim::Sim;
use crate::cal_sim::options::{DEMO_API_KEY, DEMO_OAUTH_CLIENT_ID, Options, TokenRules};
use crate::harness::{Gateway, OK, Response, Setup, Upstream};

const KEY: &str = "[credentials.main]\nplan = \"unrestricted\"\nkind = \"api-key\"\napi_key = { env = \"CAL_KEY\" }\n";
const RAISED: &str = "[credentials.main]\nplan = \"unrestricted\"\nkind = \"api-key\"\napi_key = { env = \"CAL_KEY\" }\n\
    requests_per_minute = 800\n";
const OTHER_KEY: &str =
    "[credentials.main]\nplan = \"unrestricted\"\nkind = \"api-key\"\napi_key = { env = \"OTHER_KEY\" }\n";
const GRANT: &str = "[credentials.main]\nplan = \"unrestricted\"\nkind = \"oauth\"\nclient_id = \"demo\"\n";

/// A gateway that serves the credential `main`.
struct Keys {
    rig: Rig,
    own: String,
}

impl Keys {
    fn new() -> Self {
        Self::at(Rig::new(TokenRules::default()))
    }

    fn at(mut rig: Rig) -> Self {
        let variables = [("CAL_KEY", DEMO_API_KEY), ("OTHER_KEY", "cal_live_other")];
        rig.environment.extend(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let key = crate::harness::Key::new();
        rig.platform = KEY;
        rig.users = format!(
            "[consumers.keys]\nkeys = [\"{}\"]\ncredential = \"main\"\ntier = \"roomy\"\n\
             allow_credential_operations = [\"POST /v2/api-keys/refresh\"]\n",
            key.hash
        )
        .leak();
        Self { rig, own: format!("X-Api-Key: {}", key.text) }
    }

    fn ask(&self, gateway: &Gateway, request: &str) -> Response {
        gateway.connect().ask_with(request, &[&self.own, "Content-Type: application/json"], "{}")
    }

    /// Returns the `authorization` field that Cal.com receives, or the code of the gateway's refusal.
    fn bearer(&self, gateway: &Gateway) -> String {
        self.rig.sim.forget();
        let answer = self.ask(gateway, "GET /v2/me");
        let seen = self.rig.sim.seen();
        seen.first()
            .and_then(|seen| seen.header("authorization"))
            .map_or_else(|| answer.code().unwrap().to_owned(), str::to_owned)
    }

    /// Changes the configuration to `credential`. Returns the result of [`Self::bearer`] and the listed state.
    ///
    /// A gateway that reloads and a gateway that starts with `credential` send the same field.
    fn with(&mut self, gateway: &Gateway, credential: &'static str) -> (String, String) {
        let before = std::mem::replace(&mut self.rig.platform, credential);
        gateway.reload(|text| text.replace(before, credential));
        let bearer = self.bearer(gateway);
        assert_eq!(self.bearer(&self.rig.start()), bearer);
        (bearer, self.rig.state("main"))
    }
}

#[test]
fn a_refreshed_key_belongs_only_to_the_key_that_it_replaced() {
    let mut keys = Keys::new();
    let gateway = keys.rig.start();
    let configured = format!("Bearer {DEMO_API_KEY}");
    assert_eq!((keys.bearer(&gateway), keys.rig.state("main")), (configured.clone(), "configured".to_owned()));
    assert_eq!(keys.ask(&gateway, "POST /v2/api-keys/refresh").status, 200);
    let refreshed = (keys.bearer(&gateway), "fresh".to_owned());
    assert!(refreshed.0 != configured && keys.rig.state("main") == refreshed.1, "{refreshed:?}");

    let other = ("Bearer cal_live_other".to_owned(), "configured".to_owned());
    assert_eq!(keys.with(&gateway, OTHER_KEY), other);
    let none = ("GATEWAY_CREDENTIAL_NEEDS_LOGIN".to_owned(), "needs-login".to_owned());
    assert_eq!(keys.with(&gateway, GRANT), none);
    assert!(gateway.ask_admin("GET /readyz", &[]).text().contains("credential main: needs-login"));
    // The refreshed key still replaces the key from which Cal.com made it.
    assert_eq!(keys.with(&gateway, KEY), refreshed);

    keys.with(&gateway, GRANT);
    let grant = keys.rig.sim.new_oauth_grant(DEMO_OAUTH_CLIENT_ID);
    keys.rig.ran(&["credentials", "import", "main"], &json(&grant));
    let fresh = keys.rig.start();
    assert_eq!((keys.bearer(&fresh), keys.rig.state("main")), (format!("Bearer {}", grant.access), "fresh".to_owned()));
    assert_eq!(keys.with(&fresh, KEY), (configured, "configured".to_owned()));
}

#[test]
fn a_refreshed_key_starts_a_new_budget_and_a_lower_limit_is_logged() {
    let mut options = Options::default();
    options.limits.api_key = vec![("Default".to_owned(), 800)];
    let mut keys = Keys::at(Rig::at(Sim::start(options).unwrap()));
    keys.rig.platform = RAISED;
    keys.rig.budget = "max_wait = \"2s\"";
    let gateway = keys.rig.start();
    for _ in 0..20 {
        assert_eq!(keys.ask(&gateway, "GET /v2/me").status, 200);
    }
    let refreshed = keys.ask(&gateway, "POST /v2/api-keys/refresh");
    assert_eq!((refreshed.status, refreshed.json()["data"]["apiKey"].as_str()), (200, Some("(kept by calgate)")));
    // Sixteen callers send three times the requests that Cal.com grants to the new key.
    let statuses = std::thread::scope(|scope| {
        let caller = || (0..24).map(|_| keys.ask(&gateway, "GET /v2/me").status).collect::<Vec<_>>();
        let callers: Vec<_> = (0..16).map(|_| scope.spawn(caller)).collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect::<Vec<_>>()
    });
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert!(
        (100..=120).contains(&served) && keys.rig.sim.rate_limited() == 0,
        "{served}, {}",
        keys.rig.sim.rate_limited()
    );
    let logged = gateway.wait_for_log("fewer requests per window");
    assert!(logged.contains(r#""granted":120"#) && logged.contains(r#""configured":800"#), "{logged}");
    assert_eq!(gateway.metric("calgate_budget_limit", "main"), 120);
}

#[test]
fn a_new_key_without_the_prefix_is_not_stored() {
    let odd = r#"{"status":"success","data":{"apiKey":"undefined"}}"#;
    for (reveal, answered) in [(false, (502, Some("GATEWAY_UPSTREAM_INVALID"))), (true, (200, None))] {
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{odd}", odd.len());
        let upstream =
            Upstream::answering(
                move |asked| {
                    if asked.target().ends_with("/refresh") { answer.clone().into() } else { OK.into() }
                },
            );
        let (folder, key) = (tempfile::tempdir().unwrap(), crate::harness::Key::new());
        let config = format!(
            "[token_store]\npath = \"{}\"\nseal_keys = [{{ env = \"SEAL_KEY\" }}]\n{KEY}reveal_tokens = {reveal}\n\
             [consumers.keys]\nkeys = [\"{}\"]\ncredential = \"main\"\n\
             allow_credential_operations = [\"POST /v2/api-keys/refresh\"]\n",
            folder.path().join("tokens.db").display(),
            key.hash
        );
        let setup = Setup::to(&upstream.base_url()).with(&config).env("CAL_KEY", DEMO_API_KEY);
        let gateway = setup.env("SEAL_KEY", SEAL_KEY).start();
        let own = format!("X-Api-Key: {}", key.text);
        let refreshed = gateway.ask("POST /v2/api-keys/refresh", &[&own]);
        assert_eq!((refreshed.status, refreshed.code()), answered);
        assert!(gateway.wait_for_log("no API key that begins with cal_").contains(r#""credential":"main""#));
        assert_eq!(gateway.ask("GET /v2/me", &[&own]).status, 200);
        let bearer = format!("Bearer {DEMO_API_KEY}");
        assert_eq!(upstream.requests().last().unwrap().headers("authorization"), [bearer], "the key in use stays");
    }
}
