//! Cal.com's token endpoints: requests to them, and the meaning of their responses.
//!
//! The wire is the gateway's own, which knows whether a call may have been carried out. Reasons name statuses and error
//! codes, never messages: Cal.com has echoed tokens in those (FACTS §1).

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
use crate::refresh::{Keeper, oauth, wall};
use crate::secret::{Secret, wiped};

impl Keeper {
    /// Asks Cal.com for a new pair.
    pub(super) async fn ask_upstream(&self, handle: &TokenHandle, wanted: RenewalCall) -> Outcome {
        let cal_com = self.cal_com.load_full();
        match (&*handle.renewal_method.load_full(), wanted, handle.name.user) {
            (RenewalMethod::OAuth(client), RenewalCall::Refresh(token), _) => {
                oauth::refresh(&cal_com, client, &token).await
            }
            (RenewalMethod::Managed(client), RenewalCall::Refresh(token), _) => {
                refresh_managed(&cal_com, client, &token).await
            }
            (RenewalMethod::Managed(client), RenewalCall::Recover, Some(user)) => {
                force_refresh(&cal_com, client, user).await
            }
            _ => Outcome::NotSent("there is no way to renew this credential".to_owned()),
        }
    }
}

/// How the gateway makes calls of its own.
#[derive(Debug)]
pub struct CalCom {
    /// Where to.
    pub upstream: Arc<Upstream>,
    /// What they are counted in; `None` for a command that makes but one.
    pub budgets: Option<Arc<Budgets>>,
}

impl CalCom {
    /// Makes a call that counts at Cal.com as a caller's would.
    pub(super) async fn call(&self, request: ApiRequest) -> Result<ApiResponse, ApiError> {
        let Some(budgets) = &self.budgets else { return self.upstream.call(request).await };
        let slot = budgets.reserve_internal(&request.headers).await;
        let mut slot = slot.map_err(|refusal| ApiError::NotSent(refusal.public_error().message))?;
        slot.mark_sent();
        let operation = operation_key("POST", &request.path);
        let called = self.upstream.call(request).await;
        match &called {
            // What a 429 means for a renewal is told by its status.
            Ok(called) => drop(slot.record_response(called.status, &called.headers, || operation)),
            Err(ApiError::NotSent(_)) => slot.mark_unsent(),
            Err(ApiError::Unknown(_)) => {}
        }
        called
    }
}

async fn refresh_managed(cal_com: &CalCom, client: &ManagedUsers, token: &Secret) -> Outcome {
    let body = token.expose(|token| serde_json::to_vec(&serde_json::json!({ "refreshToken": token })));
    let path = format!("/v2/oauth/{}/refresh", client.client_id);
    // Of a refresh token that is no good Cal.com says 400; other refusals are of the client.
    managed(cal_com, client, path, body.unwrap_or_default(), &[StatusCode::BAD_REQUEST]).await
}

async fn force_refresh(cal_com: &CalCom, client: &ManagedUsers, user: UserId) -> Outcome {
    let path = format!("/v2/oauth-clients/{}/users/{user}/force-refresh", client.client_id);
    managed(cal_com, client, path, Vec::new(), &[StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND]).await
}

/// Asks for a managed user's pair; answers with a status of `refusals` say that none is to be had in this way.
async fn managed(
    cal_com: &CalCom,
    client: &ManagedUsers,
    path: String,
    body: Vec<u8>,
    refusals: &[StatusCode],
) -> Outcome {
    let id = HeaderValue::from_str(&client.client_id).unwrap_or_else(|_| HeaderValue::from_static(""));
    let headers = HeaderMap::from_iter([(CLIENT_ID, id), (SECRET_KEY, client.secret.clone())]);
    let content_type = HeaderValue::from_static("application/json");
    match cal_com.call(ApiRequest { path, content_type, headers, body: wiped(body) }).await {
        Ok(called) => managed_outcome(&called, refusals),
        Err(fault) => unanswered(fault),
    }
}

fn managed_outcome(called: &ApiResponse, refusals: &[StatusCode]) -> Outcome {
    let receipt = ReceivedAt::of(&called.headers, wall());
    match called.status {
        status if status.is_success() => match from_managed_user(&called.body, receipt) {
            Some((pair, _)) => Outcome::Renewed(pair),
            None => unreadable(),
        },
        // Only in Cal.com's own words is it a refusal; an edge in front of it answers 403 with a page (FACTS §6).
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

/// What was asked with is as good as before, and is asked with again when the client is mended.
pub(super) fn client_refused(status: StatusCode) -> Outcome {
    Outcome::NotSent(format!("Cal.com refused the client's id or secret ({status})"))
}

/// A success without tokens that calgate can read. Cal.com may have used the refresh token up.
pub(super) fn unreadable() -> Outcome {
    Outcome::Unknown("Cal.com's token response holds no access token that calgate can read".to_owned())
}

/// An answer that is neither tokens nor a refusal of the token.
pub(super) fn failed(called: &ApiResponse) -> Outcome {
    let why = format!("Cal.com's token endpoint answered {}", called.status);
    match called.status {
        // What failed inside may have gone through; what was turned away before it began did not.
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
