//! Decides what happens to new tokens in a response: they are stored, or shown to the client.

use std::sync::Arc;

use http::Method;
use serde_json::Value;

use super::{Credentials, RecordName, RenewalMethod};
use crate::catalog::{CanonicalPath, RouteMatch};
use crate::credential::managed_user::UserId;
use crate::credential::received_tokens::{ReceivedAt, from_api_key, from_managed_user};
use crate::credential::stored_token::TokenPair;
use crate::credential::token_state::TokenHandle;
use crate::entitle::Grant;
use crate::identify::Identity;
use crate::refusal::Refusal;

/// Replacement for a token in a response.
const REDACTED: &str = "(kept by calgate)";

/// Kind of tokens in the response of an operation (FACTS §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CapturedKind {
    /// Pair of a managed user. The path or the response names the user.
    TokenPair(Option<UserId>),
    /// API key that replaces the key of the request.
    ApiKey,
}

/// Operations whose responses hold tokens that calgate stores.
const OPERATIONS: [(&str, CapturedKind); 5] = [
    ("/v2/api-keys/refresh", CapturedKind::ApiKey),
    ("/v2/oauth-clients/{clientId}/users", CapturedKind::TokenPair(None)),
    ("/v2/oauth-clients/{clientId}/users/{userId}/force-refresh", CapturedKind::TokenPair(None)),
    ("/v2/oauth/{clientId}/refresh", CapturedKind::TokenPair(None)),
    ("/v2/oauth/{clientId}/exchange", CapturedKind::TokenPair(None)),
];

fn captured_kind(matched: &RouteMatch<'_>) -> Option<CapturedKind> {
    matched.endpoint().filter(|e| e.credential_operation && e.method == Method::POST)?;
    // By the path, because the author of the catalog chooses the names of its parameters.
    let path = matched.path();
    let (template, kind) = OPERATIONS.iter().find(|(template, _)| path.matches(template))?;
    let user = path.parameter(template, "{userId}").and_then(UserId::parse);
    Some(if user.is_some() { CapturedKind::TokenPair(user) } else { *kind })
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

/// Instructions for the tokens in the response to a request.
#[derive(Debug)]
pub struct Capture {
    kind: CapturedKind,
    credential: Arc<str>,
    renewal_method: RenewalMethod,
    reveal: bool,
}

impl Credentials {
    /// Returns how to capture the tokens in the response to a request.
    ///
    /// # Errors
    /// [`Refusal::TokensUnkept`] if calgate could neither store nor show the tokens, so that they would be lost.
    pub fn capture(&self, grant: &Grant<'_>) -> Result<Option<Box<Capture>>, Refusal> {
        let Some(kind) = captured_kind(grant.route()) else { return Ok(None) };
        let Identity::Consumer(consumer) = grant.caller().identity() else { return Ok(None) };
        let credential = self.of(consumer.id).ok_or(Refusal::Internal)?;
        let renewal_method = match kind {
            CapturedKind::ApiKey => {
                credential.renewal_method().filter(|renewal_method| matches!(renewal_method, RenewalMethod::Key { .. }))
            }
            CapturedKind::TokenPair(_) => credential.managed().cloned().map(RenewalMethod::Managed),
        };
        let (reveal, credential) = (credential.reveal_tokens, credential.name.clone());
        match renewal_method {
            Some(renewal_method) => Ok(Some(Box::new(Capture { kind, credential, renewal_method, reveal }))),
            None if reveal => Ok(None),
            None => Err(Refusal::TokensUnkept),
        }
    }

    /// Stores the tokens in a response. Returns the body to send instead of `body`, if the caller may not see the tokens.
    /// Revealed tokens reach the caller even if they cannot be stored.
    ///
    /// # Errors
    /// [`Refusal::UpstreamInvalid`] for a response without tokens, because then it is unknown what Cal.com did.
    pub async fn store(&self, capture: &Capture, body: &[u8], receipt: ReceivedAt) -> Result<Option<Vec<u8>>, Refusal> {
        let (pair, user) = match capture.kind.read(body, receipt) {
            Ok(read) => read,
            Err(why) => return capture.report_not_stored(why).map(|()| None),
        };
        let redacted = if capture.reveal { None } else { Some(redacted(body, &pair).ok_or(Refusal::UpstreamInvalid)) };
        let name = RecordName { credential: capture.credential.clone(), user };
        let handle: Arc<TokenHandle> = self.registry.get_or_insert(name, || capture.renewal_method.clone());
        if !handle.capture(pair).await {
            tracing::error!(credential = %handle.name, "cannot store new tokens yet; they are in use, and calgate keeps trying");
        }
        redacted.transpose()
    }
}

impl CapturedKind {
    /// Reads the tokens of a response, and their user.
    fn read(self, body: &[u8], receipt: ReceivedAt) -> Result<(TokenPair, Option<UserId>), &'static str> {
        match self {
            Self::ApiKey => {
                let key = from_api_key(body, receipt).ok_or("the response holds no API key that begins with cal_")?;
                Ok((key, None))
            }
            Self::TokenPair(named) => {
                let (pair, answered) =
                    from_managed_user(body, receipt).ok_or("the response holds no tokens that calgate can read")?;
                let user = named.or(answered).ok_or("the response does not say whose tokens these are")?;
                Ok((pair, Some(user)))
            }
        }
    }
}

impl Capture {
    /// Logs that new tokens are not stored.
    ///
    /// # Errors
    /// [`Refusal::UpstreamInvalid`] if the caller may not see them either.
    pub fn report_not_stored(&self, why: &'static str) -> Result<(), Refusal> {
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

/// Minimum length of a token that is searched for inside the texts of a response, 8 bytes. A shorter one would occur by
/// chance.
const MIN_SEARCHED: usize = 8;

/// Names of fields that hold tokens.
const TOKEN_FIELDS: [&str; 6] = ["accessToken", "refreshToken", "apiKey", "access_token", "refresh_token", "api_key"];

/// Returns a response body without its tokens, wherever they occur.
fn redacted(body: &[u8], pair: &TokenPair) -> Option<Vec<u8>> {
    let mut answer: Value = serde_json::from_slice(body).ok()?;
    let refresh = pair.refresh.as_ref();
    pair.access.expose(|access| match refresh {
        Some(refresh) => refresh.expose(|refresh| redact(&mut answer, &[access, refresh])),
        None => redact(&mut answer, &[access]),
    });
    serde_json::to_vec(&answer).ok()
}

fn redact(value: &mut Value, tokens: &[&str]) {
    match value {
        Value::String(text) if tokens.iter().any(|token| token.len() >= MIN_SEARCHED && text.contains(token)) => {
            *value = Value::from(REDACTED);
        }
        Value::Array(list) => list.iter_mut().for_each(|value| redact(value, tokens)),
        Value::Object(fields) => {
            for (name, value) in fields {
                if value.is_string() && TOKEN_FIELDS.contains(&&**name) {
                    *value = Value::from(REDACTED);
                }
                redact(value, tokens);
            }
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
