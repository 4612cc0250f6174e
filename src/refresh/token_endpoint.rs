//! Cal.com's token endpoints: requests to them, and the meaning of their responses.
//!
//! The calls use the gateway's own client, which knows whether Cal.com may have processed a call. Reasons name statuses and
//! error codes, never messages, because Cal.com has repeated tokens in messages (FACTS §1).

use std::borrow::Cow;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;

use crate::budget::{Budgets, operation_key};
use crate::credential::lifecycle::{Outcome, RenewalCall};
use crate::credential::managed_user::UserId;
use crate::credential::received_tokens::{ReceivedAt, from_managed_user};
use crate::credential::token_state::TokenHandle;
use crate::credential::{ManagedUsers, RenewalMethod};
use crate::forward::{ApiError, ApiRequest, ApiResponse, Upstream};
use crate::headers::{CLIENT_ID, SECRET_KEY};
use crate::refresh::{TokenRefresher, oauth, unix_millis};
use crate::secret::{Secret, wiped};

impl TokenRefresher {
    /// Requests a new pair from Cal.com.
    pub(super) async fn request_pair(&self, handle: &TokenHandle, wanted: RenewalCall) -> Outcome {
        let cal_client = self.cal_client.load_full();
        match (&*handle.renewal_method.load_full(), wanted, handle.name.user) {
            (RenewalMethod::OAuth(client), RenewalCall::Refresh(token), _) => {
                oauth::refresh(&cal_client, client, &token).await
            }
            (RenewalMethod::Managed(client), RenewalCall::Refresh(token), _) => {
                refresh_managed(&cal_client, client, &token).await
            }
            (RenewalMethod::Managed(client), RenewalCall::Recover, Some(user)) => {
                force_refresh(&cal_client, client, user).await
            }
            _ => Outcome::NotSent("there is no way to renew this credential".to_owned()),
        }
    }
}

/// Client for the gateway's own calls to Cal.com.
#[derive(Debug)]
pub struct CalClient {
    /// Connections to Cal.com.
    pub upstream: Arc<Upstream>,
    /// Budgets that count the calls. `None` for a command, which makes only one call.
    pub budgets: Option<Arc<Budgets>>,
}

impl CalClient {
    /// Makes a call. It counts in the budget of its credential, as at Cal.com.
    pub(super) async fn call(&self, request: ApiRequest) -> Result<ApiResponse, ApiError> {
        let Some(budgets) = &self.budgets else { return self.upstream.call(request).await };
        let slot = budgets.reserve_internal(&request.headers).await;
        let mut slot = slot.map_err(|refusal| ApiError::NotSent(refusal.public_error().message))?;
        slot.mark_sent();
        let operation = operation_key("POST", &request.path);
        let called = self.upstream.call(request).await;
        match &called {
            // The renewal reads a 429 from the status.
            Ok(called) => drop(slot.record_response(called.status, &called.headers, || operation)),
            Err(ApiError::NotSent(_)) => slot.mark_unsent(),
            Err(ApiError::Unknown(_)) => {}
        }
        called
    }
}

async fn refresh_managed(cal_client: &CalClient, client: &ManagedUsers, token: &Secret) -> Outcome {
    let body = token.expose(|token| serde_json::to_vec(&serde_json::json!({ "refreshToken": token })));
    let path = format!("/v2/oauth/{}/refresh", client.client_id);
    // Cal.com answers 400 to an invalid refresh token. Other refusals concern the client.
    managed(cal_client, client, path, body.unwrap_or_default(), &[StatusCode::BAD_REQUEST]).await
}

async fn force_refresh(cal_client: &CalClient, client: &ManagedUsers, user: UserId) -> Outcome {
    let path = format!("/v2/oauth-clients/{}/users/{user}/force-refresh", client.client_id);
    managed(cal_client, client, path, Vec::new(), &[StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND]).await
}

/// Requests the pair of a managed user. A response with a status of `refusals` means that this way yields no pair.
async fn managed(
    cal_client: &CalClient,
    client: &ManagedUsers,
    path: String,
    body: Vec<u8>,
    refusals: &[StatusCode],
) -> Outcome {
    let id = HeaderValue::from_str(&client.client_id).unwrap_or_else(|_| HeaderValue::from_static(""));
    let headers = HeaderMap::from_iter([(CLIENT_ID, id), (SECRET_KEY, client.secret.clone())]);
    let content_type = HeaderValue::from_static("application/json");
    match cal_client.call(ApiRequest { path, content_type, headers, body: wiped(body) }).await {
        Ok(called) => managed_outcome(&called, refusals),
        Err(fault) => unanswered(fault),
    }
}

fn managed_outcome(called: &ApiResponse, refusals: &[StatusCode]) -> Outcome {
    let receipt = ReceivedAt::of(&called.headers, unix_millis());
    match called.status {
        status if status.is_success() => match from_managed_user(&called.body, receipt) {
            Some((pair, _)) => Outcome::Renewed(pair),
            None => unreadable(),
        },
        // Only a response in Cal.com's format is a refusal. An edge in front of it answers 403 with a page (FACTS §6).
        status @ (StatusCode::BAD_REQUEST
        | StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND)
            if serde_json::from_slice::<CalError>(&called.body).is_ok_and(|error| error.status == "error") =>
        {
            if refusals.contains(&status) {
                Outcome::Refused(format!("Cal.com refused to renew it ({status})"))
            } else {
                client_refused(status)
            }
        }
        _ => failed(called),
    }
}

#[derive(Deserialize)]
struct CalError<'a> {
    status: Cow<'a, str>,
}

/// Outcome of a refusal of the client. The token is still valid, and is used again when the client is corrected.
pub(super) fn client_refused(status: StatusCode) -> Outcome {
    Outcome::NotSent(format!("Cal.com refused the client's id or secret ({status})"))
}

/// Outcome of a success without readable tokens. Cal.com may have invalidated the refresh token.
pub(super) fn unreadable() -> Outcome {
    Outcome::Unknown("Cal.com's token response holds no access token that calgate can read".to_owned())
}

/// Outcome of a response that has no tokens and is not a refusal of the token.
pub(super) fn failed(called: &ApiResponse) -> Outcome {
    let why = format!("Cal.com's token endpoint answered {}", called.status);
    match called.status {
        // After an internal error Cal.com may have renewed the pair. A call that it rejected first did not.
        status if status.is_server_error() => Outcome::Unknown(why),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => Outcome::NotSent(why),
        // An edge in front of Cal.com answers with a page (FACTS §6), which says nothing about the token.
        status if status.is_client_error() && !is_page(&called.headers) => Outcome::Rejected(why),
        _ => Outcome::NotSent(why),
    }
}

fn is_page(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media.trim_start().to_ascii_lowercase().starts_with("text/html")
}

pub(super) fn unanswered(fault: ApiError) -> Outcome {
    match fault {
        ApiError::NotSent(why) => Outcome::NotSent(why),
        ApiError::Unknown(why) => Outcome::Unknown(why),
    }
}
