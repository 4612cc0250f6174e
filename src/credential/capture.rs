//! Decides what happens to new tokens in a response: they are stored, or shown to the client.

use std::sync::Arc;

use http::Method;
use serde_json::Value;

use super::{Credentials, Means, RecordName};
use crate::catalog::{CanonicalPath, RouteMatch};
use crate::credential::managed_user::UserId;
use crate::credential::received_tokens::{Receipt, of_api_key, of_managed};
use crate::credential::stored_token::Pair;
use crate::credential::token_state::Holder;
use crate::entitle::Grant;
use crate::identify::Identity;
use crate::refusal::Refusal;

/// What stands in an answer in the place of a token.
const WITHHELD: &str = "(kept by calgate)";

/// What the answer of an operation holds (FACTS §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// A managed user's pair; the path, or the answer itself, says whose.
    Pair(Option<UserId>),
    /// The API key that takes the place of the one that asked.
    ApiKey,
}

/// Operations whose answers hold tokens that calgate keeps.
const OPERATIONS: [(&str, Holds); 5] = [
    ("/v2/api-keys/refresh", Holds::ApiKey),
    ("/v2/oauth-clients/{clientId}/users", Holds::Pair(None)),
    ("/v2/oauth-clients/{clientId}/users/{userId}/force-refresh", Holds::Pair(None)),
    ("/v2/oauth/{clientId}/refresh", Holds::Pair(None)),
    ("/v2/oauth/{clientId}/exchange", Holds::Pair(None)),
];

fn holds(matched: &RouteMatch<'_>) -> Option<Holds> {
    matched.endpoint().filter(|e| e.credential_operation && e.method == Method::POST)?;
    // By the path: what the catalog calls its parameters is up to whoever made it.
    let path = matched.path();
    let (template, holds) = OPERATIONS.iter().find(|(template, _)| path.matches(template))?;
    let user = path.parameter(template, "{userId}").and_then(UserId::parse);
    Some(if user.is_some() { Holds::Pair(user) } else { *holds })
}

/// Returns whether the response to a request may contain tokens that calgate stores. The path alone decides, because the
/// request's operation is looked up only once, and later.
pub fn makes_tokens(method: &Method, path: &str) -> bool {
    let last = |path: &str| path.strip_suffix('/').unwrap_or(path).rsplit('/').next().is_some_and(is_last_of_any);
    // Cheap tests exclude nearly every request. An escape may spell any segment.
    let is_likely = method == Method::POST && (last(path) || path.contains('%'));
    is_likely
        && CanonicalPath::parse(path).is_ok_and(|path| OPERATIONS.iter().any(|(template, _)| path.matches(template)))
}

fn is_last_of_any(segment: &str) -> bool {
    OPERATIONS.iter().any(|(template, _)| template.rsplit('/').next().is_some_and(|l| l.eq_ignore_ascii_case(segment)))
}

/// What is to be done with the answer to a request, if it succeeds.
#[derive(Debug)]
pub struct Capture {
    holds: Holds,
    credential: Arc<str>,
    means: Means,
    reveal: bool,
}

impl Credentials {
    /// What is to be captured of the answer to a request.
    ///
    /// # Errors
    /// [`Refusal::TokensUnkept`] where the answer would hold tokens that could neither be kept nor shown: they would be
    /// lost.
    pub fn capture(&self, grant: &Grant<'_>) -> Result<Option<Box<Capture>>, Refusal> {
        let Some(holds) = holds(grant.route()) else { return Ok(None) };
        let Identity::Consumer(consumer) = grant.caller().identity() else { return Ok(None) };
        let credential = self.of(consumer.id).ok_or(Refusal::Internal)?;
        let means = match holds {
            Holds::ApiKey => credential.means().filter(|means| matches!(means, Means::Key { .. })),
            Holds::Pair(_) => credential.managed().cloned().map(Means::Managed),
        };
        let (reveal, credential) = (credential.reveal_tokens, credential.name.clone());
        match means {
            Some(means) => Ok(Some(Box::new(Capture { holds, credential, means, reveal }))),
            None if reveal => Ok(None),
            None => Err(Refusal::TokensUnkept),
        }
    }

    /// Captures the tokens of an answer. What is answered to the caller instead of `body` comes back. Where tokens are
    /// revealed, they reach the caller even if they cannot be kept.
    ///
    /// # Errors
    /// [`Refusal::UpstreamInvalid`] for an answer that holds none: what Cal.com did is unknown then.
    pub async fn keep(&self, capture: &Capture, body: &[u8], receipt: Receipt) -> Result<Option<Vec<u8>>, Refusal> {
        let (pair, user) = match capture.holds.read(body, receipt) {
            Ok(read) => read,
            Err(why) => return capture.unkept(why).map(|()| None),
        };
        let withheld = if capture.reveal { None } else { Some(withheld(body, &pair).ok_or(Refusal::UpstreamInvalid)) };
        let name = RecordName { credential: capture.credential.clone(), user };
        let holder: Arc<Holder> = self.holders.hold(name, || capture.means.clone());
        if !holder.capture(pair).await {
            tracing::error!(credential = %holder.name, "new tokens are not stored yet; they are in use, and storing goes on");
        }
        withheld.transpose()
    }
}

impl Holds {
    /// Reads the tokens of a response, and whose they are.
    fn read(self, body: &[u8], receipt: Receipt) -> Result<(Pair, Option<UserId>), &'static str> {
        match self {
            Self::ApiKey => {
                let key = of_api_key(body, receipt).ok_or("the response holds no API key that begins with cal_")?;
                Ok((key, None))
            }
            Self::Pair(named) => {
                let (pair, answered) =
                    of_managed(body, receipt).ok_or("the response holds no tokens that calgate can read")?;
                let user = named.or(answered).ok_or("the response does not say whose tokens these are")?;
                Ok((pair, Some(user)))
            }
        }
    }
}

impl Capture {
    /// Logs that new tokens are not kept.
    ///
    /// # Errors
    /// [`Refusal::UpstreamInvalid`] where the caller may not see them either.
    pub fn unkept(&self, why: &'static str) -> Result<(), Refusal> {
        let credential = &*self.credential;
        if self.reveal {
            tracing::error!(credential, why, "new tokens are not kept; the client gets them");
            return Ok(());
        }
        let todo = "get new ones, with reveal_tokens = true if that happens again";
        tracing::error!(credential, why, todo, "new tokens are lost: they can neither be kept nor shown");
        Err(Refusal::UpstreamInvalid)
    }
}

/// Length from which a text is looked for inside other texts of a response.
const MIN_SEARCHED: usize = 8;

/// Names of fields that hold tokens.
const TOKEN_FIELDS: [&str; 6] = ["accessToken", "refreshToken", "apiKey", "access_token", "refresh_token", "api_key"];

/// The answer without its tokens, wherever they stand.
fn withheld(body: &[u8], pair: &Pair) -> Option<Vec<u8>> {
    let mut answer: Value = serde_json::from_slice(body).ok()?;
    let refresh = pair.refresh.as_ref();
    pair.access.expose(|access| match refresh {
        Some(refresh) => refresh.expose(|refresh| withhold(&mut answer, &[access, refresh])),
        None => withhold(&mut answer, &[access]),
    });
    serde_json::to_vec(&answer).ok()
}

fn withhold(value: &mut Value, tokens: &[&str]) {
    match value {
        Value::String(text) if tokens.iter().any(|token| token.len() >= MIN_SEARCHED && text.contains(token)) => {
            *value = Value::from(WITHHELD);
        }
        Value::Array(list) => list.iter_mut().for_each(|value| withhold(value, tokens)),
        Value::Object(fields) => {
            for (name, value) in fields {
                if value.is_string() && TOKEN_FIELDS.contains(&&**name) {
                    *value = Value::from(WITHHELD);
                }
                withhold(value, tokens);
            }
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
