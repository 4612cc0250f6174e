//! Clients that disconnect while Cal.com creates new tokens: calgate stores the tokens.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use calgate::catalog::Catalog;
use calgate::credential::capture::makes_tokens;
use http::Method;
use parking_lot::Mutex;

use super::rig::SEAL_KEY;
use crate::harness::{Gateway, Key, OK, ReceivedRequest, Setup, Upstream, client_builder, eventually};

const CONFIG: &str = "[tiers.roomy]\nrequests_per_minute = 1000000\n\
    [credentials.main]\nkind = \"api-key\"\napi_key = { env = \"CAL_KEY\" }\nplan = \"unrestricted\"\n\
    [credentials.platform]\nkind = \"platform-client\"\nclient_id = \"c1\"\nclient_secret = { env = \"CAL_KEY\" }\n\
    managed_users = true\nplan = \"unrestricted\"\n\
    [consumers.keys]\nkeys = [\"KEYS\"]\ncredential = \"main\"\ntier = \"roomy\"\n\
    allow_credential_operations = [\"POST /v2/api-keys/refresh\"]\n\
    [consumers.users]\nkeys = [\"USERS\"]\ncredential = \"platform\"\ntier = \"roomy\"\n\
    allow_credential_operations = [\"POST /v2/oauth-clients/{clientId}/users\", \"POST /v2/oauth/{clientId}/refresh\", \
    \"POST /v2/oauth-clients/{clientId}/users/{userId}/force-refresh\"]\n";

/// A simulated Cal.com that creates a token for each signal of the test, and a store.
struct Slow {
    upstream: Upstream,
    go_on: mpsc::Sender<String>,
    keys: Key,
    users: Key,
    folder: tempfile::TempDir,
}

impl Slow {
    fn start() -> Self {
        let (go_on, told) = mpsc::channel::<String>();
        let told = Mutex::new(told);
        let upstream = Upstream::answering(move |asked: &ReceivedRequest| {
            if asked.request_line.starts_with("GET") {
                return OK.into();
            }
            let token = told.lock().recv().unwrap_or_default();
            let data = format!(
                "{{\"apiKey\":\"{token}\",\"accessToken\":\"{token}\",\"refreshToken\":\"r\",\"user\":{{\"id\":7}}}}"
            );
            let body = format!("{{\"status\":\"success\",\"data\":{data}}}");
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                .into_bytes()
        });
        Self { upstream, go_on, keys: Key::new(), users: Key::new(), folder: tempfile::tempdir().unwrap() }
    }

    fn setup(&self) -> Setup {
        let path = self.folder.path().join("store/tokens.db");
        let store = format!("[token_store]\npath = \"{}\"\nseal_keys = [{{ env = \"SEAL_KEY\" }}]", path.display());
        let config = CONFIG.replace("KEYS", &self.keys.hash).replace("USERS", &self.users.hash);
        let setup = Setup::to(&self.upstream.base_url()).with(&store).with(&config);
        setup.env("SEAL_KEY", SEAL_KEY).env("CAL_KEY", "cal_live_old")
    }

    fn gateway(&self) -> Gateway {
        self.setup().start()
    }

    /// Imports tokens of the user with an expired access token.
    fn import_run_out(&self) {
        let file = self.folder.path().join("command.toml");
        std::fs::write(&file, self.setup().text()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_calgate"))
            .args(["credentials", "import", "platform", "--managed-user", "7"])
            .envs([("SEAL_KEY", SEAL_KEY), ("CAL_KEY", "x")])
            .env("CALGATE_CONFIG", &file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pair = b"{\"access_token\":\"run-out\",\"refresh_token\":\"r\",\"expires_at\":1}";
        command.stdin.take().unwrap().write_all(pair).unwrap();
        assert!(command.wait().unwrap().success());
    }

    fn key_of(&self, path: &str) -> &Key {
        if path.contains("api-keys") { &self.keys } else { &self.users }
    }

    /// Requests new tokens, and disconnects after Cal.com has received the request.
    fn ask_and_leave(&self, gateway: &Gateway, path: &str) {
        let before = self.upstream.requests().len();
        let mut caller = gateway.connect();
        let key = &self.key_of(path).text;
        caller.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nX-Api-Key: {key}\r\nContent-Length: 2\r\n\r\n{{}}"));
        eventually("a request at Cal.com", || (self.upstream.requests().len() > before).then_some(()));
        caller.reset();
        eventually("the caller gone", || (gateway.metric("calgate_connections", "") == 0).then_some(()));
    }

    /// Returns the `authorization` field of the next request to Cal.com.
    fn bearer(&self, gateway: &Gateway, path: &str) -> String {
        let key = format!("X-Api-Key: {}", self.key_of(path).text);
        let user = if path.contains("api-keys") { "Accept: */*" } else { "x-calgate-managed-user: 7" };
        let answer = gateway.ask("GET /v2/me", &[&key, user]);
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.upstream.requests().last().unwrap().headers("authorization").join("|")
    }
}

#[test]
fn tokens_are_stored_after_the_caller_has_disconnected() {
    let slow = Slow::start();
    let gateway = slow.gateway();
    let paths = [
        "/v2/api-keys/refresh",
        "/v2/oauth-clients/c1/users",
        "/v2/oauth/c1/refresh",
        "/v2/OAuth-clients/c1/users/7/force%2Drefresh/",
    ];
    for (round, path) in paths.into_iter().enumerate() {
        slow.ask_and_leave(&gateway, path);
        slow.go_on.send(format!("cal_new_{round}")).unwrap();
        let log = gateway.access_log(2 * round + 1);
        assert_eq!(log[2 * round]["status"], 499, "{log:?}");
        assert_eq!(slow.bearer(&gateway, path), format!("Bearer cal_new_{round}"), "{path}");
        gateway.access_log(2 * round + 2);
    }
}

#[test]
fn tokens_are_stored_after_an_http2_caller_has_cancelled_its_request() {
    let slow = Slow::start();
    let gateway = slow.gateway();
    let path = "/v2/api-keys/refresh";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = client_builder().http2_prior_knowledge().build().unwrap();
    let request = client.post(format!("http://{}{path}", gateway.address)).bearer_auth(&slow.keys.text).body("{}");
    let caller = runtime.spawn(request.send());
    eventually("a request at Cal.com", || (slow.upstream.requests().len() == 1).then_some(()));
    caller.abort();
    assert!(runtime.block_on(caller).unwrap_err().is_cancelled());
    // The connection stays open. The gateway has read the reset when it answers the next stream.
    let me = client.get(format!("http://{}/v2/me", gateway.address)).bearer_auth(&slow.keys.text);
    assert_eq!(runtime.block_on(me.send()).unwrap().status(), 200);
    slow.go_on.send("cal_new".to_owned()).unwrap();
    let log = gateway.access_log(2);
    assert_eq!(log.iter().map(|line| &line["status"]).collect::<Vec<_>>(), [200, 499]);
    assert_eq!(slow.bearer(&gateway, path), "Bearer cal_new");
}

#[test]
fn the_drain_waits_for_tokens_whose_caller_has_disconnected() {
    let slow = Slow::start();
    let mut gateway = slow.gateway();
    let path = "/v2/api-keys/refresh";
    slow.ask_and_leave(&gateway, path);
    assert_eq!(gateway.metric("calgate_requests_in_flight", ""), 1);
    gateway.signal("-TERM");
    gateway.wait_for_log("draining");
    slow.go_on.send("cal_new".to_owned()).unwrap();
    assert_eq!(gateway.wait_for_exit(), Some(0));
    assert_eq!(gateway.access_log(1)[0]["status"], 499);
    assert_eq!(slow.bearer(&slow.gateway(), path), "Bearer cal_new");
}

#[test]
fn a_second_signal_answers_a_client_that_waits_for_tokens() {
    let slow = Slow::start();
    let mut gateway = slow.gateway();
    let mut client = gateway.connect();
    let key = &slow.keys.text;
    let head = format!("POST /v2/api-keys/refresh HTTP/1.1\r\nHost: h\r\nX-Api-Key: {key}\r\nContent-Length: 2");
    client.send(format!("{head}\r\n\r\n{{}}"));
    eventually("a request at Cal.com", || (slow.upstream.requests().len() == 1).then_some(()));
    gateway.signal("-TERM");
    gateway.wait_for_log("draining");
    gateway.signal("-TERM");
    let answer = client.read_response();
    assert_eq!((answer.status, answer.code()), (503, Some("GATEWAY_STOPPING")));
    assert!(answer.text().contains("The request was sent to Cal.com"), "{}", answer.text());
    assert_eq!(gateway.wait_for_exit(), Some(0));
    assert_eq!(gateway.access_log(1)[0]["status"], 503);
}

#[test]
fn the_drain_waits_for_a_renewal_without_a_waiting_request() {
    let slow = Slow::start();
    slow.import_run_out();
    let mut gateway = slow.gateway();
    let mut caller = gateway.connect();
    let headers = format!("Host: h\r\nX-Api-Key: {}\r\nx-calgate-managed-user: 7", slow.users.text);
    caller.send(format!("GET /v2/me HTTP/1.1\r\n{headers}\r\n\r\n"));
    let renewals = || slow.upstream.requests().iter().filter(|asked| asked.target() == "/v2/oauth/c1/refresh").count();
    eventually("a renewal at Cal.com", || (renewals() == 1).then_some(()));
    caller.reset();
    eventually("the caller gone", || (gateway.metric("calgate_connections", "") == 0).then_some(()));
    gateway.signal("-TERM");
    gateway.wait_for_log("draining");
    slow.go_on.send("cal_new".to_owned()).unwrap();
    assert_eq!(gateway.wait_for_exit(), Some(0));
    assert_eq!(slow.bearer(&slow.gateway(), "/v2/oauth/c1/refresh"), "Bearer cal_new");
    assert_eq!(renewals(), 1);
}

#[test]
fn an_incomplete_request_never_reaches_cal_com() {
    let slow = Slow::start();
    let gateway = slow.gateway();
    let mut caller = gateway.connect();
    let head = format!("Host: h\r\nX-Api-Key: {}\r\nContent-Length: 10", slow.users.text);
    caller.send(format!("POST /v2/oauth-clients/c1/users HTTP/1.1\r\n{head}\r\n\r\n{{\"a\""));
    eventually("a request in flight", || (gateway.metric("calgate_requests_in_flight", "") == 1).then_some(()));
    caller.reset();
    let line = &gateway.access_log(1)[0];
    assert_eq!((&line["code"], line.get("upstream_ms")), (&"GATEWAY_BAD_REQUEST".into(), None), "{line}");
}

#[test]
fn operations_that_create_tokens_are_recognised_in_any_spelling() {
    for request in
        ["/v2/api-keys/refresh", "/v2/API-Keys/Refresh/", "/v2/api-keys/%72efresh", "/v2/oauth-clients/x/Users"]
    {
        assert!(makes_tokens(&Method::POST, request), "{request}");
    }
    let mut known = Vec::new();
    for endpoint in Catalog::built_in().endpoints() {
        let path = endpoint.template.as_str().replace(['{', '}'], "");
        if makes_tokens(&endpoint.method, &path) {
            assert!(endpoint.credential_operation, "{endpoint}");
            known.push(endpoint.to_string());
        }
    }
    let expected = [
        "POST /v2/api-keys/refresh",
        "POST /v2/oauth-clients/{clientId}/users",
        "POST /v2/oauth-clients/{clientId}/users/{userId}/force-refresh",
        "POST /v2/oauth/{clientId}/exchange",
        "POST /v2/oauth/{clientId}/refresh",
    ];
    known.sort_unstable();
    assert_eq!(known, expected);
    assert!(!makes_tokens(&Method::GET, "/v2/api-keys/refresh"));
    for other in ["/v2/bookings", "/v2/organizations/1/users", "/v2/bookings/%41/cancel", "/v2/users", "//refresh"] {
        assert!(!makes_tokens(&Method::POST, other), "{other}");
    }
}
