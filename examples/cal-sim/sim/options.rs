//! Options of a simulated Cal.com.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::operations::{self, OperationLimit};

/// Default API key.
pub const DEMO_API_KEY: &str = "cal_live_demo0123456789abcdef";
/// Default platform client.
pub const DEMO_CLIENT_ID: &str = "cldemo0000platform";
/// Secret of [`DEMO_CLIENT_ID`].
pub const DEMO_CLIENT_SECRET: &str = "demo-platform-client-secret";
/// Default confidential OAuth client.
pub const DEMO_OAUTH_CLIENT_ID: &str = "cldemo0000oauth";
/// Secret of [`DEMO_OAUTH_CLIENT_ID`].
pub const DEMO_OAUTH_SECRET: &str = "demo-oauth-client-secret";
/// Default public OAuth client, which must use PKCE.
pub const DEMO_PUBLIC_CLIENT_ID: &str = "cldemo0000public";

/// Options of the simulation. The defaults are those of Cal.com (FACTS §1, §2), on a free port of the loopback interface.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Whether to use HTTPS, with a certificate of a separate authority, and to offer HTTP/2.
    pub tls: bool,
    /// Number of worker threads.
    pub workers: usize,
    /// Timeout of a connection without a request.
    pub keep_alive: Duration,
    /// Latency of each response. Half of it passes before the request is counted, and half after.
    pub latency: Duration,
    /// Maximum random addition to the latency.
    pub jitter: Duration,
    /// Maximum number of requests that are kept for [`super::Sim::seen`]. Newer ones replace the oldest.
    pub keep_seen: usize,
    /// Rate limits.
    pub limits: Limits,
    /// Credentials at the start.
    pub credentials: Credentials,
    /// Lifetimes of tokens.
    pub tokens: TokenRules,
    /// Whether to answer 403 to every request with a bearer token, and to echo the token.
    pub forbidden: bool,
}

/// Rate limits and their windows.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Length of a window.
    pub window: Duration,
    /// Length of a block.
    pub block: Duration,
    /// Limits of each API key, and of each address without a credential: name and requests per window. An empty list means no
    /// limit and no headers.
    pub api_key: Vec<(String, u32)>,
    /// Limits of API keys that `POST /v2/api-keys/refresh` created. They lose the limits of the previous key (FACTS §1).
    pub new_api_key: Vec<(String, u32)>,
    /// Limits of each access token and client id.
    pub other: Vec<(String, u32)>,
    /// Limits of single operations.
    pub operations: Vec<OperationLimit>,
    /// Whether windows can be prolonged (see [`super::limiter`]).
    pub quirk: bool,
    /// Requests per minute that another client sends with each credential, evenly spread.
    pub foreign_per_minute: u32,
}

/// Credentials that exist at the start.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// API keys, `cal_…`.
    pub api_keys: Vec<String>,
    /// Access tokens that never expire.
    pub access_tokens: Vec<String>,
    /// Platform clients, each with id and secret.
    pub platform_clients: Vec<(String, String)>,
    /// OAuth clients, each with its id, and with a secret if it is confidential.
    pub oauth_clients: Vec<(String, Option<String>)>,
}

/// Lifetimes of tokens, and faults in issuing them.
#[derive(Debug, Clone)]
pub struct TokenRules {
    /// Lifetime of an OAuth access token.
    pub oauth_access: Duration,
    /// Lifetime of an OAuth refresh token, which can be used repeatedly.
    pub oauth_refresh: Duration,
    /// Lifetime of a managed user's access token. If it is a minute or longer, it is rounded down to a whole minute.
    pub managed_access: Duration,
    /// Lifetime of a managed user's refresh token, which can be used once.
    pub managed_refresh: Duration,
    /// Whether a refresh of a managed user's pair also ends the old access token. It always ends the old refresh token. Cal.com
    /// keeps the access token (FACTS §1). Tests enable this for a harder case.
    pub refresh_ends_access: bool,
    /// Whether OAuth responses lack `expires_in`.
    pub leave_out_expires_in: bool,
    /// Time after its issue in which a token is answered 401, because a replica has not received it yet.
    pub lag: Duration,
    /// Number of first uses of a token that are answered 401 as well.
    pub lag_uses: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: false,
            workers: 1,
            keep_alive: Duration::from_secs(5),
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            keep_seen: 100_000,
            limits: Limits::default(),
            credentials: Credentials::default(),
            tokens: TokenRules::default(),
            forbidden: false,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self {
            window: minute,
            block: minute,
            api_key: vec![("Default".to_owned(), 120)],
            new_api_key: vec![("Default".to_owned(), 120)],
            other: vec![("Default".to_owned(), 500)],
            operations: operations::usual(),
            quirk: false,
            foreign_per_minute: 0,
        }
    }
}

impl Default for Credentials {
    fn default() -> Self {
        let owned = str::to_owned;
        Self {
            api_keys: vec![owned(DEMO_API_KEY)],
            access_tokens: Vec::new(),
            platform_clients: vec![(owned(DEMO_CLIENT_ID), owned(DEMO_CLIENT_SECRET))],
            oauth_clients: vec![
                (owned(DEMO_OAUTH_CLIENT_ID), Some(owned(DEMO_OAUTH_SECRET))),
                (owned(DEMO_PUBLIC_CLIENT_ID), None),
            ],
        }
    }
}

impl Default for TokenRules {
    fn default() -> Self {
        let days = |n: u64| Duration::from_secs(n * 24 * 3600);
        Self {
            oauth_access: Duration::from_secs(30 * 60),
            oauth_refresh: days(30),
            managed_access: Duration::from_secs(60 * 60),
            managed_refresh: days(365),
            refresh_ends_access: false,
            leave_out_expires_in: false,
            lag: Duration::ZERO,
            lag_uses: 0,
        }
    }
}
