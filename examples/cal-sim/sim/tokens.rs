//! State of Cal.com's tokens: which are issued and valid, and which a refresh ends (FACTS §1). No I/O: the caller passes the
//! time.

use std::collections::HashMap;
use std::time::Duration;

use super::jwt;
use super::options::TokenRules;

/// Owner of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holder {
    /// User who granted access to an OAuth client.
    OAuth { client: String },
    /// Managed user of a platform client.
    Managed { client: String, user: u64 },
}

/// Pair of a new access token and refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Access token.
    pub access: String,
    /// Refresh token.
    pub refresh: String,
    /// Expiry of the access token, since 1970.
    pub access_ends: Duration,
    /// Expiry of the refresh token, since 1970.
    pub refresh_ends: Duration,
}

/// State of an access token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Worth {
    Good(Holder),
    Expired(Holder),
    Unknown,
}

#[derive(Debug)]
struct Token {
    holder: Holder,
    issued: Duration,
    ends: Duration,
    uses: u32,
}

/// Authorization code, which can be exchanged once.
#[derive(Debug, Clone)]
pub(super) struct Code {
    pub(super) client: String,
    pub(super) redirect_uri: String,
    /// PKCE challenge (S256).
    pub(super) challenge: Option<String>,
}

/// All tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    rules: TokenRules,
    access: HashMap<String, Token>,
    refresh: HashMap<String, Token>,
    codes: HashMap<String, Code>,
    users: u64,
}

impl Tokens {
    pub(super) fn new(rules: TokenRules) -> Self {
        Self { rules, access: HashMap::new(), refresh: HashMap::new(), codes: HashMap::new(), users: 0 }
    }

    pub(super) fn new_code(&mut self, code: Code) -> String {
        let text = jwt::random_text();
        self.codes.insert(text.clone(), code);
        text
    }

    pub(super) fn take_code(&mut self, text: &str) -> Option<Code> {
        self.codes.remove(text)
    }

    /// Creates a managed user and returns its number.
    pub(super) fn new_user(&mut self) -> u64 {
        self.users += 1;
        self.users
    }

    /// Returns whether the managed user exists.
    pub(super) fn has_user(&self, user: u64) -> bool {
        (1..=self.users).contains(&user)
    }

    /// Issues a pair.
    pub(super) fn issue(&mut self, holder: &Holder, now: Duration) -> Pair {
        let rules = &self.rules;
        let (access_ends, refresh_ends) = match holder {
            Holder::OAuth { .. } => (now + rules.oauth_access, now + rules.oauth_refresh),
            Holder::Managed { .. } => (to_the_minute(now, rules.managed_access), now + rules.managed_refresh),
        };
        let token = |ends| Token { holder: holder.clone(), issued: now, ends, uses: 0 };
        let pair = Pair {
            access: jwt::access_token(holder, now, access_ends),
            refresh: jwt::refresh_token(holder, now, refresh_ends),
            access_ends,
            refresh_ends,
        };
        self.access.insert(pair.access.clone(), token(access_ends));
        self.refresh.insert(pair.refresh.clone(), token(refresh_ends));
        pair
    }

    /// Issues a new pair for an OAuth refresh token, which stays valid.
    pub(super) fn refresh_oauth(&mut self, client: &str, refresh: &str, now: Duration) -> Option<Pair> {
        let holder = Holder::OAuth { client: client.to_owned() };
        self.refresh.get(refresh).filter(|token| token.holder == holder && now < token.ends)?;
        Some(self.issue(&holder, now))
    }

    /// Issues a new pair for a managed user's refresh token, and ends that token. Cal.com never checks whether it has expired. It
    /// deletes all expired access tokens of the client (FACTS §1).
    pub(super) fn refresh_managed(&mut self, client: &str, refresh: &str, now: Duration) -> Option<Pair> {
        let known = self.refresh.get(refresh)?;
        let holder = known.holder.clone();
        if !matches!(&holder, Holder::Managed { client: own, .. } if own == client) {
            return None;
        }
        let issued = known.issued;
        self.refresh.remove(refresh);
        let of_client = |holder: &Holder| matches!(holder, Holder::Managed { client: own, .. } if own == client);
        self.access.retain(|_, token| now < token.ends || !of_client(&token.holder));
        if self.rules.refresh_ends_access {
            self.access.retain(|_, token| token.holder != holder || token.issued != issued);
        }
        Some(self.issue(&holder, now))
    }

    /// Issues a new pair for a managed user. All other tokens of the user become invalid.
    pub(super) fn force_refresh(&mut self, client: &str, user: u64, now: Duration) -> Pair {
        let holder = Holder::Managed { client: client.to_owned(), user };
        self.access.retain(|_, token| token.holder != holder);
        self.refresh.retain(|_, token| token.holder != holder);
        self.issue(&holder, now)
    }

    /// Revokes a token.
    pub(super) fn revoke(&mut self, token: &str) {
        self.access.remove(token);
        self.refresh.remove(token);
    }

    /// Returns the state of an access token. A replica that has not received a new token yet treats it as unknown.
    pub(super) fn worth(&mut self, access: &str, now: Duration) -> Worth {
        let Some(token) = self.access.get_mut(access) else { return Worth::Unknown };
        token.uses = token.uses.saturating_add(1);
        if token.uses <= self.rules.lag_uses || now < token.issued + self.rules.lag {
            return Worth::Unknown;
        }
        let holder = token.holder.clone();
        if now < token.ends { Worth::Good(holder) } else { Worth::Expired(holder) }
    }
}

/// Returns the expiry of a managed user's access token, rounded down to a whole minute (FACTS §1).
fn to_the_minute(now: Duration, life: Duration) -> Duration {
    let end = now + life;
    if life < Duration::from_secs(60) { end } else { Duration::from_secs(end.as_secs() / 60 * 60) }
}
