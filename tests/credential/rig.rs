//! Test rig of renewable credentials: a simulated Cal.com, a store, and replicas of the gateway.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::cal_sim::options::{
    DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, DEMO_OAUTH_CLIENT_ID, DEMO_OAUTH_SECRET, Options, TokenRules,
};
use crate::cal_sim::{Pair, Sim};
use crate::harness::{Gateway, Key, Response, Setup};

/// Two different seal keys.
pub const SEAL_KEY: &str = "Y2FuYXJ5LXNlYWwta2V5LW5vLTEtMTExMTExMTExMTE=";
pub const OTHER_SEAL_KEY: &str = "Y2FuYXJ5LXNlYWwta2V5LW5vLTItMjIyMjIyMjIyMjI=";

/// A simulated Cal.com without limits.
pub fn sim(tokens: TokenRules) -> Sim {
    limited(tokens, None)
}

/// A simulated Cal.com that grants each token and each client `limit` requests a minute, if there is a limit.
pub fn limited(tokens: TokenRules, limit: Option<u32>) -> Sim {
    let mut options = Options { tokens, ..Options::default() };
    options.limits.api_key.clear();
    options.limits.other = limit.map(|limit| ("Default".to_owned(), limit)).into_iter().collect();
    Sim::start(options).unwrap()
}

/// A Cal.com, a store and a consumer's key.
pub struct Rig {
    pub sim: Sim,
    pub key: Key,
    pub folder: tempfile::TempDir,
    /// Lines of `[token_store]` other than the seal keys.
    pub place: String,
    /// Keys of the credential `platform`, and of the consumer `users`.
    pub platform: &'static str,
    pub users: &'static str,
    /// More keys of the credential `app`.
    pub app: &'static str,
    /// Lines of `[budget]`.
    pub budget: &'static str,
    pub environment: Vec<(String, String)>,
    /// Base URL of an upstream that replaces the simulated Cal.com.
    pub upstream: Option<String>,
}

impl Rig {
    pub fn new(tokens: TokenRules) -> Self {
        Self::at(sim(tokens))
    }

    pub fn at(sim: Sim) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = format!("path = \"{}\"", folder.path().join("store/tokens.db").display());
        let environment = Vec::new();
        // Callers send requests as fast as they can, and this Cal.com has no limiter.
        let budget = "mode = \"off\"";
        let upstream = None;
        Self { sim, key: Key::new(), folder, place, platform: "", users: "", app: "", budget, environment, upstream }
    }

    /// The file of the embedded store.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("store/tokens.db")
    }

    pub fn config(&self) -> String {
        let authorize = format!("{}/auth/oauth2/authorize", self.sim.base_url());
        let users_key = &self.key.hash;
        format!(
            "[token_store]\n{}\nseal_keys = [{{ env = \"SEAL_KEY\" }}]\n\
             [tiers.roomy]\nrequests_per_minute = 1000000\n\
             [credentials.app]\nkind = \"oauth\"\nclient_id = \"{DEMO_OAUTH_CLIENT_ID}\"\n\
             client_secret = {{ env = \"OAUTH_SECRET\" }}\nauthorize_url = \"{authorize}\"\nplan = \"unrestricted\"\n{}\n\
             [credentials.platform]\nkind = \"platform-client\"\nclient_id = \"{DEMO_CLIENT_ID}\"\n\
             client_secret = {{ env = \"CLIENT_SECRET\" }}\nmanaged_users = true\nplan = \"unrestricted\"\n{}\n\
             [consumers.users]\nkeys = [\"{users_key}\"]\ncredential = \"platform\"\ntier = \"roomy\"\n{}\n\
             [consumers.app]\ncredential = \"app\"\ntier = \"roomy\"\n[anonymous]\nconsumer = \"app\"\n",
            self.place, self.app, self.platform, self.users
        )
    }

    fn variables(&self) -> Vec<(String, String)> {
        let own = [("SEAL_KEY", SEAL_KEY), ("OAUTH_SECRET", DEMO_OAUTH_SECRET), ("CLIENT_SECRET", DEMO_CLIENT_SECRET)];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        own.into_iter().chain(self.environment.iter().cloned()).collect()
    }

    /// Returns the setup of a replica.
    pub fn setup(&self) -> Setup {
        let setup = Setup::to(self.upstream.as_deref().unwrap_or(&self.sim.base_url()));
        let setup = setup.with(&format!("[budget]\n{}", self.budget)).with(&self.config());
        self.variables().iter().fold(setup, |setup, (name, value)| setup.env(name, value))
    }

    pub fn start(&self) -> Gateway {
        self.setup().start()
    }

    /// Runs a command with this configuration.
    pub fn run(&self, args: &[&str], input: &str) -> Output {
        let file = self.folder.path().join("command.toml");
        std::fs::write(&file, self.setup().text()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_calgate"))
            .args(args)
            .env("CALGATE_CONFIG", &file)
            .envs(self.variables())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Runs a command that must succeed, and returns its standard output.
    pub fn ran(&self, args: &[&str], input: &str) -> String {
        let output = self.run(args, input);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail, and returns its standard error.
    pub fn refused(&self, args: &[&str], input: &str) -> String {
        let output = self.run(args, input);
        assert!(!output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }

    /// Imports a new grant for the OAuth credential.
    pub fn import_app(&self) -> Pair {
        let pair = self.sim.new_oauth_grant(DEMO_OAUTH_CLIENT_ID);
        self.ran(&["credentials", "import", "app"], &json(&pair));
        pair
    }

    /// Imports a new managed user.
    pub fn import_user(&self) -> (u64, Pair) {
        let (user, pair) = self.sim.new_managed_user(DEMO_CLIENT_ID);
        self.ran(&["credentials", "import", "platform", "--managed-user", &user.to_string()], &json(&pair));
        (user, pair)
    }

    /// Returns the state of a credential from `calgate credentials`, or `none`.
    pub fn state(&self, name: &str) -> String {
        let list: serde_json::Value = serde_json::from_str(&self.ran(&["credentials", "--json"], "")).unwrap();
        let of = |line: &&serde_json::Value| line["credential"] == name;
        list.as_array().unwrap().iter().find(of).map_or("none", |line| line["state"].as_str().unwrap()).to_owned()
    }

    /// Sends a request that acts for a managed user.
    pub fn for_user(&self, gateway: &Gateway, user: u64, request: &str) -> Response {
        let key = format!("X-Api-Key: {}", self.key.text);
        gateway.ask(request, &[&key, &format!("x-calgate-managed-user: {user}")])
    }
}

/// Input of `calgate credentials import` for a pair.
pub fn json(pair: &Pair) -> String {
    let (access, refresh) = (&pair.access, &pair.refresh);
    serde_json::json!({ "access_token": access, "refresh_token": refresh, "expires_at": pair.access_ends.as_secs() })
        .to_string()
}

/// Rules for access tokens that live for `seconds`. A refresh ends the old access token too, unlike at Cal.com.
pub fn living(seconds: u64) -> TokenRules {
    let life = Duration::from_secs(seconds);
    TokenRules { oauth_access: life, managed_access: life, refresh_ends_access: true, ..TokenRules::default() }
}
