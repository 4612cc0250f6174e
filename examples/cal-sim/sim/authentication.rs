//! Authentication as Cal.com does it: which credentials an operation accepts, and the errors for others (FACTS §1).

use std::time::Duration;

use calgate::catalog::Accepts;

use super::answer::Fault;
use super::presented::Presented;
use super::routes::Route;
use super::state::State;
use super::tokens::{Holder, Worth};

/// Authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    Nobody,
    ApiKey(String),
    AccessToken,
    ManagedUser(u64),
    PlatformClient,
}

impl Caller {
    /// Returns the kind, as responses name it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nobody => "none",
            Self::ApiKey(_) => "api-key",
            Self::AccessToken => "access-token",
            Self::ManagedUser(_) => "managed-user",
            Self::PlatformClient => "platform-client",
        }
    }
}

/// Operations with a class guard that runs before authentication. It answers 403 to a token without a row in the database, and
/// repeats the token (FACTS §1).
const GUARDED: [(&str, &str); 16] = [
    ("GET", "/v2/bookings"),
    ("GET", "/v2/bookings/{bookingUid}/calendar-links"),
    ("POST", "/v2/bookings/{bookingUid}/confirm"),
    ("POST", "/v2/bookings/{bookingUid}/decline"),
    ("POST", "/v2/bookings/{bookingUid}/mark-absent"),
    ("POST", "/v2/bookings/{bookingUid}/reassign"),
    ("POST", "/v2/bookings/{bookingUid}/reassign/{userId}"),
    ("GET", "/v2/bookings/{bookingUid}/references"),
    ("POST", "/v2/event-types"),
    ("GET", "/v2/event-types/{eventTypeId}"),
    ("PATCH", "/v2/event-types/{eventTypeId}"),
    ("DELETE", "/v2/event-types/{eventTypeId}"),
    ("GET", "/v2/event-types/{eventTypeId}/private-links"),
    ("POST", "/v2/event-types/{eventTypeId}/private-links"),
    ("PATCH", "/v2/event-types/{eventTypeId}/private-links/{linkId}"),
    ("DELETE", "/v2/event-types/{eventTypeId}/private-links/{linkId}"),
];

/// Class guard of [`GUARDED`] operations.
pub(super) fn guard(state: &State, route: &Route, given: &Presented, now: Duration) -> Result<(), Fault> {
    let asked = (route.endpoint.method.as_str(), route.endpoint.template.as_str());
    let Some(token) = given.bearer.as_deref().filter(|_| GUARDED.contains(&asked)) else { return Ok(()) };
    let is_client = given.client_id.is_some() && given.client_secret.is_some();
    let is_static = state.options.credentials.access_tokens.iter().any(|known| known == token);
    if is_client || is_static || token.starts_with("cal_") {
        return Ok(());
    }
    match state.tokens().worth(token, now) {
        Worth::Good(_) | Worth::Expired(Holder::Managed { .. }) => Ok(()),
        Worth::Expired(Holder::OAuth { .. }) | Worth::Unknown => {
            let message = format!("PermissionsGuard - no oAuth client found for access token={token}");
            Err(Fault::new(403, "ForbiddenException", message))
        }
    }
}

/// Checks the credentials of a request. Client id and secret together take precedence over a bearer token.
pub(super) fn check(state: &State, route: &Route, given: &Presented, now: Duration) -> Result<Caller, Fault> {
    let accepts = route.endpoint.accepts;
    let id = route.parameter("clientId").or(given.client_id.as_deref());
    let caller = match (id, &given.client_secret, &given.bearer) {
        (Some(id), Some(secret), _) => client(state, id, secret),
        (_, _, Some(bearer)) => self::bearer(state, bearer, now),
        _ if route.endpoint.public => return Ok(Caller::Nobody),
        _ => Err(Fault::unauthorized(
            "No authentication method provided. Either pass an API key as 'Bearer' header or OAuth client credentials as 'x-cal-secret-key' and 'x-cal-client-id' headers",
        )),
    };
    match (accepts, caller) {
        // These operations ignore credentials, so an invalid one is not an error.
        (Accepts::Any, caller) => Ok(caller.unwrap_or(Caller::Nobody)),
        (Accepts::Client, Ok(caller)) if caller != Caller::PlatformClient => {
            Err(Fault::unauthorized("this operation takes only 'x-cal-client-id' and 'x-cal-secret-key'"))
        }
        (_, caller) => caller,
    }
}

fn client(state: &State, id: &str, secret: &str) -> Result<Caller, Fault> {
    let mut known = state.options.credentials.platform_clients.iter();
    match known.find(|(known, _)| known == id) {
        Some((_, own)) if own == secret => Ok(Caller::PlatformClient),
        Some(_) => Err(Fault::unauthorized("invalid OAuth client secret")),
        None => Err(Fault::unauthorized("OAuth client with this id does not exist")),
    }
}

fn bearer(state: &State, bearer: &str, now: Duration) -> Result<Caller, Fault> {
    if bearer.starts_with("cal_") {
        let known = state.api_keys().contains(bearer);
        return known
            .then(|| Caller::ApiKey(bearer.to_owned()))
            .ok_or(Fault::unauthorized("Your api key is not valid"));
    }
    if state.options.credentials.access_tokens.iter().any(|known| known == bearer) {
        return Ok(Caller::AccessToken);
    }
    match state.tokens().worth(bearer, now) {
        Worth::Good(Holder::Managed { user, .. }) => Ok(Caller::ManagedUser(user)),
        Worth::Good(Holder::OAuth { .. }) => Ok(Caller::AccessToken),
        Worth::Expired(Holder::Managed { .. }) => Err(Fault::token_expired()),
        Worth::Expired(Holder::OAuth { .. }) | Worth::Unknown => Err(Fault::unauthorized("Invalid Access Token.")),
    }
}
