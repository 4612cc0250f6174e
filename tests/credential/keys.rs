//! API keys that a caller had refreshed: each is in use in the place of the configured one it was made from, and of no other.

use super::rig::{Rig, json};
use crate::cal_sim::options::{DEMO_API_KEY, DEMO_OAUTH_CLIENT_ID, TokenRules};
use crate::harness::{Answer, Gateway};

const KEY: &str = "[credentials.main]\nplan = \"unrestricted\"\nkind = \"api-key\"\napi_key = { env = \"CAL_KEY\" }\n";
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
        let mut rig = Rig::new(TokenRules::default());
        let variables = [("CAL_KEY", DEMO_API_KEY), ("OTHER_KEY", "cal_live_other")];
        rig.environment.extend(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let key = crate::harness::Key::new();
        rig.platform = KEY;
        rig.users = format!(
            "[consumers.keys]\nkeys = [\"{}\"]\ncredential = \"main\"\n\
             allow_credential_operations = [\"POST /v2/api-keys/refresh\"]\n",
            key.hash
        )
        .leak();
        Self { rig, own: format!("X-Api-Key: {}", key.text) }
    }

    fn ask(&self, gateway: &Gateway, request: &str) -> Answer {
        gateway.connect().ask_with(request, &[&self.own, "Content-Type: application/json"], "{}")
    }

    /// What a request of its goes out with, or why it does not.
    fn bearer(&self, gateway: &Gateway) -> String {
        self.rig.sim.forget();
        let answer = self.ask(gateway, "GET /v2/me");
        let seen = self.rig.sim.seen();
        seen.first()
            .and_then(|seen| seen.header("authorization"))
            .map_or_else(|| answer.code().unwrap().to_owned(), str::to_owned)
    }

    /// The same of a gateway that goes over to `credential`, and of one that begins with it; and how it is listed.
    fn with(&mut self, gateway: &Gateway, credential: &'static str) -> (String, String) {
        let before = std::mem::replace(&mut self.rig.platform, credential);
        gateway.reload(|text| text.replace(before, credential));
        let bearer = self.bearer(gateway);
        assert_eq!(self.bearer(&self.rig.start()), bearer);
        (bearer, self.rig.state("main"))
    }
}

#[test]
fn a_refreshed_key_is_of_no_other_key_and_of_no_other_kind() {
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
    // Nothing of that took it away from the key that it is of.
    assert_eq!(keys.with(&gateway, KEY), refreshed);

    keys.with(&gateway, GRANT);
    let grant = keys.rig.sim.new_oauth_grant(DEMO_OAUTH_CLIENT_ID);
    keys.rig.ran(&["credentials", "import", "main"], &json(&grant));
    let fresh = keys.rig.start();
    assert_eq!((keys.bearer(&fresh), keys.rig.state("main")), (format!("Bearer {}", grant.access), "fresh".to_owned()));
    assert_eq!(keys.with(&fresh, KEY), (configured, "configured".to_owned()));
}
