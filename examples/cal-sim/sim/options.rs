//! Options of a simulated Cal.com.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::operations::{self, OperationLimit};

/// The API key that is known unless other ones are given.
pub const DEMO_API_KEY: &str = "cal_live_demo0123456789abcdef";
/// The platform client that is known unless other ones are given.
pub const DEMO_CLIENT_ID: &str = "cldemo0000platform";
/// The secret of [`DEMO_CLIENT_ID`].
pub const DEMO_CLIENT_SECRET: &str = "demo-platform-client-secret";
/// A confidential OAuth client that is known unless other ones are given.
pub const DEMO_OAUTH_CLIENT_ID: &str = "cldemo0000oauth";
/// The secret of [`DEMO_OAUTH_CLIENT_ID`].
pub const DEMO_OAUTH_SECRET: &str = "demo-oauth-client-secret";
/// A public OAuth client, one that has to use PKCE.
pub const DEMO_PUBLIC_CLIENT_ID: &str = "cldemo0000public";

/// How to behave. The defaults are Cal.com's (FACTS §1, §2), on a free port of the loopback interface.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen.
    pub listen: SocketAddr,
    /// HTTPS, with a certificate of an authority of its own, and with HTTP/2 on offer.
    pub tls: bool,
    /// Threads that serve.
    pub workers: usize,
    /// How long a connection may be without a request.
    pub keep_alive: Duration,
    /// Between a request's arrival and its answer: half of it before the request is counted, half after.
    pub latency: Duration,
    /// At most this much, by chance, on top of the latency.
    pub jitter: Duration,
    /// Requests that are kept for [`super::Sim::seen`]; the oldest ones make room.
    pub keep_seen: usize,
    /// Who may do what how often.
    pub limits: Limits,
    /// Who is known.
    pub credentials: Credentials,
    /// How tokens live.
    pub tokens: TokenRules,
    /// Answer 403 to every operation that a bearer asks for, and echo the bearer.
    pub forbidden: bool,
}

/// The limits and their time.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a window counts.
    pub window: Duration,
    /// How long a block lasts.
    pub block: Duration,
    /// Of each API key, and of each address without a credential: name and requests per window. None: no limit, and no
    /// headers either.
    pub api_key: Vec<(String, u32)>,
    /// Of each API key that `POST /v2/api-keys/refresh` has made: it has lost the limits of the key before (FACTS §1).
    pub new_api_key: Vec<(String, u32)>,
    /// Of each access token and client id.
    pub other: Vec<(String, u32)>,
    /// Of operations with a limit of their own.
    pub operations: Vec<OperationLimit>,
    /// Whether a window can be prolonged, see [`super::limiter`].
    pub quirk: bool,
    /// Requests a minute that somebody else makes with each credential, evenly spread.
    pub foreign_per_minute: u32,
}

/// The credentials that exist at the start.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// API keys, `cal_…`.
    pub api_keys: Vec<String>,
    /// Access tokens that never expire.
    pub access_tokens: Vec<String>,
    /// Platform clients: id and secret.
    pub platform_clients: Vec<(String, String)>,
    /// OAuth clients: id, and the secret of a confidential one.
    pub oauth_clients: Vec<(String, Option<String>)>,
}

/// How long tokens live and how they are handed out.
#[derive(Debug, Clone)]
pub struct TokenRules {
    /// Life of an OAuth access token.
    pub oauth_access: Duration,
    /// Life of an OAuth refresh token, which may be used again and again.
    pub oauth_refresh: Duration,
    /// Life of a managed user's access token. A minute or longer, it ends at a whole minute, so it may be shorter.
    pub managed_access: Duration,
    /// Life of a managed user's refresh token, which may be used once.
    pub managed_refresh: Duration,
    /// Whether refreshing a managed user's pair ends its old access token, too. Its old refresh token always ends. Cal.com
    /// leaves the access token (FACTS §1); tests turn this on for a harder case.
    pub refresh_ends_access: bool,
    /// Leave `expires_in` out of OAuth answers.
    pub leave_out_expires_in: bool,
    /// For so long after it was issued, a token is answered 401, as if it were unknown: a replica has not heard of it.
    pub lag: Duration,
    /// So many first uses of a token are answered so, too.
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
