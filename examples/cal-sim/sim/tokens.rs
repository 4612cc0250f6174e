//! State of Cal.com's tokens: which are issued and valid, and which a refresh ends (FACTS §1). No I/O: the caller passes the time.

use std::collections::HashMap;
use std::time::Duration;

use super::jwt;
use super::options::TokenRules;

/// Whose a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holder {
    /// A person who has let an OAuth client act for them.
    OAuth { client: String },
    /// A managed user of a platform client.
    Managed { client: String, user: u64 },
}

/// A new access and refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Goes into `Authorization`.
    pub access: String,
    /// Gets the next pair.
    pub refresh: String,
    /// When the access token ends, since 1970.
    pub access_ends: Duration,
    /// When the refresh token ends, since 1970.
    pub refresh_ends: Duration,
}

/// What an access token is worth now.
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

/// A code of the authorize page, to be exchanged once.
#[derive(Debug, Clone)]
pub(super) struct Code {
    pub(super) client: String,
    pub(super) redirect_uri: String,
    /// The challenge of PKCE, S256.
    pub(super) challenge: Option<String>,
}

/// Every token there is.
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

    /// A new managed user's number.
    pub(super) fn new_user(&mut self) -> u64 {
        self.users += 1;
        self.users
    }

    /// Whether there is such a managed user.
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

    /// A new pair for an OAuth refresh token, which stays good.
    pub(super) fn refresh_oauth(&mut self, client: &str, refresh: &str, now: Duration) -> Option<Pair> {
        let holder = Holder::OAuth { client: client.to_owned() };
        self.refresh.get(refresh).filter(|token| token.holder == holder && now < token.ends)?;
        Some(self.issue(&holder, now))
    }

    /// A new pair for a managed user's refresh token, which ends in the same step. Cal.com never checks whether it has
    /// expired. It deletes every expired access token of the client (FACTS §1).
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

    /// A new pair for a managed user; every other token of that user ends.
    pub(super) fn force_refresh(&mut self, client: &str, user: u64, now: Duration) -> Pair {
        let holder = Holder::Managed { client: client.to_owned(), user };
        self.access.retain(|_, token| token.holder != holder);
        self.refresh.retain(|_, token| token.holder != holder);
        self.issue(&holder, now)
    }

    /// Makes a token unknown.
    pub(super) fn revoke(&mut self, token: &str) {
        self.access.remove(token);
        self.refresh.remove(token);
    }

    /// What an access token is worth. A replica that has not heard of it yet answers as if it were unknown.
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

/// The end of a managed user's access token: a whole minute, and no later than its life says (FACTS §1).
fn to_the_minute(now: Duration, life: Duration) -> Duration {
    let end = now + life;
    if life < Duration::from_secs(60) { end } else { Duration::from_secs(end.as_secs() / 60 * 60) }
}
