//! Operations that create, change and end tokens and keys (FACTS §1, "Token endpoints").

use std::collections::HashMap;
use std::time::Duration;

use http::header::CACHE_CONTROL;
use http::{HeaderValue, Method};
use serde_json::{Value, json};

use super::answer::{self, Answer, Fault};
use super::authentication::Caller;
use super::jwt;
use super::routes::Route;
use super::state::{State, TokenCounts};
use super::tokens::{Holder, Pair};

/// Result of a token operation: a response, or a refusal in Cal.com's envelope.
type Outcome = Result<Answer, Fault>;

/// Answers a request for a token operation. Returns `None` for any other operation.
pub(super) fn answer(state: &State, route: &Route, caller: &Caller, body: &[u8], now: Duration) -> Option<Outcome> {
    if route.endpoint.method != Method::POST {
        return None;
    }
    let client = route.parameter("clientId").unwrap_or_default();
    let outcome = match route.endpoint.template.as_str() {
        "/v2/auth/oauth2/token" => Ok(oauth_token(state, &fields(body), now)),
        "/v2/oauth/{clientId}/refresh" => refresh_managed(state, client, &fields(body), now),
        "/v2/oauth-clients/{clientId}/users" => Ok(create_managed(state, client, &fields(body), now)),
        "/v2/oauth-clients/{clientId}/users/{userId}/force-refresh" => force_refresh(state, client, route, now),
        "/v2/api-keys/refresh" => refresh_api_key(state, caller),
        _ => return None,
    };
    let was_refused = outcome.as_ref().map_or(true, |answer| !answer.status().is_success());
    state.counts().refused += u64::from(was_refused);
    Some(outcome)
}

/// Returns the fields of a JSON or form body.
fn fields(body: &[u8]) -> HashMap<String, String> {
    match serde_json::from_slice::<HashMap<String, Value>>(body) {
        Ok(fields) => fields.into_iter().filter_map(|(k, v)| Some((k, v.as_str()?.to_owned()))).collect(),
        Err(_) => form_urlencoded::parse(body).into_owned().collect(),
    }
}

/// Responses of this operation have no envelope (RFC 6749 §5).
fn oauth_token(state: &State, fields: &HashMap<String, String>, now: Duration) -> Answer {
    let granted = oauth_grant(state, fields, now);
    let (status, body) = match granted {
        Ok(pair) => (200, oauth_body(state, &pair)),
        Err((status, error, why)) => (status, json!({ "error": error, "error_description": why })),
    };
    let mut answer = answer::json_answer(status, &body);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn oauth_body(state: &State, pair: &Pair) -> Value {
    let rules = &state.options.tokens;
    let mut body = json!({ "access_token": pair.access, "token_type": "bearer", "refresh_token": pair.refresh });
    if let Some(body) = body.as_object_mut().filter(|_| !rules.leave_out_expires_in) {
        let rounded_up = rules.oauth_access.as_millis().div_ceil(1000);
        body.insert("expires_in".to_owned(), json!(u64::try_from(rounded_up).unwrap_or(u64::MAX)));
    }
    body
}

/// Status, error code (RFC 6749 §5.2) and description.
type OAuthFault = (u16, &'static str, &'static str);

const INVALID_CLIENT: OAuthFault = (401, "invalid_client", "client authentication failed");
const INVALID_GRANT: OAuthFault = (400, "invalid_grant", "the request is not granted");

fn oauth_grant(state: &State, fields: &HashMap<String, String>, now: Duration) -> Result<Pair, OAuthFault> {
    let field = |name: &str| fields.get(name).map(String::as_str);
    let (id, mut clients) = (field("client_id"), state.options.credentials.oauth_clients.iter());
    let (id, secret) = clients.find(|(known, _)| Some(known.as_str()) == id).ok_or(INVALID_CLIENT)?;
    if field("client_secret").is_some() && field("code_verifier").is_some() {
        // A confidential client uses no PKCE at all (FACTS §1).
        return Err((400, "invalid_request", "property code_verifier should not exist"));
    }
    if secret.is_some() && secret.as_deref() != field("client_secret") {
        return Err(INVALID_CLIENT);
    }
    match field("grant_type") {
        Some("authorization_code") => {
            let code = field("code").and_then(|code| state.tokens().take_code(code)).ok_or(INVALID_GRANT)?;
            let verified = match (&code.challenge, field("code_verifier")) {
                (Some(challenge), Some(verifier)) => *challenge == jwt::challenge(verifier),
                (None, None) => secret.is_some(),
                _ => false,
            };
            if code.client != *id || Some(code.redirect_uri.as_str()) != field("redirect_uri") || !verified {
                return Err(INVALID_GRANT);
            }
            state.counts().code_exchanges += 1;
            Ok(state.tokens().issue(&Holder::OAuth { client: id.clone() }, now))
        }
        Some("refresh_token") => {
            let refresh = field("refresh_token").unwrap_or_default();
            let pair = state.tokens().refresh_oauth(id, refresh, now).ok_or(INVALID_GRANT)?;
            state.counts().oauth_refreshes += 1;
            Ok(pair)
        }
        _ => Err((400, "unsupported_grant_type", "this grant is not supported")),
    }
}

fn refresh_managed(state: &State, client: &str, fields: &HashMap<String, String>, now: Duration) -> Outcome {
    let refresh = fields.get("refreshToken").map_or("", String::as_str);
    let pair = state.tokens().refresh_managed(client, refresh, now);
    let pair = pair.ok_or_else(|| Fault::new(400, "BadRequestException", "Invalid refresh token"))?;
    state.counts().managed_refreshes += 1;
    Ok(answer::success(&managed_body(&pair)))
}

fn force_refresh(state: &State, client: &str, route: &Route, now: Duration) -> Outcome {
    let user = route.parameter("userId").and_then(|user| user.parse().ok());
    let mut tokens = state.tokens();
    let user = user.filter(|user| tokens.has_user(*user));
    let user = user.ok_or_else(|| Fault::new(404, "NotFoundException", "this client has no such managed user"))?;
    let pair = tokens.force_refresh(client, user, now);
    state.counts().force_refreshes += 1;
    Ok(answer::success(&managed_body(&pair)))
}

fn create_managed(state: &State, client: &str, fields: &HashMap<String, String>, now: Duration) -> Answer {
    let (user, pair) = new_managed_user(state, client, now);
    let email = fields.get("email").map_or("user@example.com", String::as_str);
    let name = fields.get("name").map_or("A managed user", String::as_str);
    let mut data = managed_body(&pair);
    if let Some(data) = data.as_object_mut() {
        let zone = fields.get("timeZone").map_or("Europe/London", String::as_str);
        let user = json!({ "id": user, "email": email, "name": name, "timeZone": zone });
        data.insert("user".to_owned(), user);
    }
    answer::success(&data)
}

/// Creates a managed user with a pair.
pub(super) fn new_managed_user(state: &State, client: &str, now: Duration) -> (u64, Pair) {
    let mut tokens = state.tokens();
    let user = tokens.new_user();
    state.counts().managed_users += 1;
    (user, tokens.issue(&Holder::Managed { client: client.to_owned(), user }, now))
}

fn managed_body(pair: &Pair) -> Value {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    json!({
        "accessToken": pair.access,
        "refreshToken": pair.refresh,
        "accessTokenExpiresAt": millis(pair.access_ends),
        "refreshTokenExpiresAt": millis(pair.refresh_ends),
    })
}

/// Creates a new key and deletes the key of the request.
fn refresh_api_key(state: &State, caller: &Caller) -> Outcome {
    let Caller::ApiKey(old) = caller else {
        return Err(Fault::new(400, "BadRequestException", "only an API key can be refreshed here"));
    };
    let new = format!("cal_live_{}", jwt::random_text());
    let mut keys = state.api_keys();
    // If two requests arrive at once, the first one deletes the key of the second.
    if !keys.remove(old) {
        return Err(Fault::unauthorized("Your api key is not valid"));
    }
    keys.insert(new.clone());
    state.counts().api_key_refreshes += 1;
    Ok(answer::success(&json!({ "apiKey": new })))
}

/// Returns the counts of token operations so far.
pub(super) fn counts(state: &State) -> TokenCounts {
    *state.counts()
}
