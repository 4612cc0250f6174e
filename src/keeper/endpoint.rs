//! Cal.com's token endpoints: how each is asked, and what its answers mean.
//!
//! Grants are asked for by the `oauth2` crate; the wire is the gateway's own, which knows whether a call may have been
//! carried out. Reasons name statuses and error codes, never messages: Cal.com has echoed tokens in those (FACTS §1).

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use oauth2::basic::{BasicClient, BasicErrorResponse, BasicErrorResponseType, BasicTokenResponse};
use oauth2::{
    AsyncHttpClient, AuthType, AuthorizationCode, ClientId, ClientSecret, EndpointNotSet, EndpointSet, HttpRequest,
    HttpResponse, PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError, TokenResponse as _, TokenUrl,
};
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;

use super::{Keeper, wall};
use crate::budget::Budgets;
use crate::credential::lifecycle::{Call as Wanted, Outcome};
use crate::credential::live::Holder;
use crate::credential::managed::UserId;
use crate::credential::tokens::{Receipt, of_managed, of_oauth};
use crate::credential::{ManagedUsers, Means, OAuthClient};
use crate::forward::{Call, CallFault, Called, Upstream};
use crate::secret::Secret;

const TOKEN_PATH: &str = "/v2/auth/oauth2/token";
const SECRET_KEY: HeaderName = HeaderName::from_static("x-cal-secret-key");
const CLIENT_ID: HeaderName = HeaderName::from_static("x-cal-client-id");

/// What a login brings back from the browser.
pub struct Authorized {
    /// The code.
    pub code: String,
    /// What proves that this process asked for it (RFC 7636).
    pub verifier: PkceCodeVerifier,
    /// Where the browser was sent.
    pub redirect: RedirectUrl,
}

impl Keeper {
    /// Asks Cal.com for a new pair.
    pub(super) async fn ask_upstream(&self, holder: &Holder, wanted: Wanted) -> Outcome {
        let cal_com = self.cal_com.load_full();
        match (&*holder.means.load_full(), wanted, holder.name.user) {
            (Means::OAuth(client), Wanted::Refresh(token), _) => refresh_oauth(&cal_com, client, &token).await,
            (Means::Managed(client), Wanted::Refresh(token), _) => refresh_managed(&cal_com, client, &token).await,
            (Means::Managed(client), Wanted::Recover, Some(user)) => force_refresh(&cal_com, client, user).await,
            _ => Outcome::NotAsked("there is no way to renew this credential".to_owned()),
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
    async fn call(&self, call: Call) -> Result<Called, CallFault> {
        let Some(budgets) = &self.budgets else { return self.upstream.call(call).await };
        let slot = budgets.reserve_own(&call.headers).await;
        let mut slot = slot.map_err(|refusal| CallFault::NotSent(refusal.outward().message))?;
        slot.sending();
        let called = self.upstream.call(call).await;
        match &called {
            // What a 429 means for a renewal is told by its status.
            Ok(called) => drop(slot.answered(called.status, &called.headers)),
            Err(CallFault::NotSent(_)) => slot.not_sent(),
            Err(CallFault::Unknown(_)) => {}
        }
        called
    }
}

async fn refresh_oauth(cal_com: &CalCom, client: &OAuthClient, token: &Secret) -> Outcome {
    let http = Http::to(cal_com);
    let Some(oauth) = oauth_client(client) else { return unusable() };
    let token = RefreshToken::new(token.with_text(str::to_owned));
    let answer = oauth.exchange_refresh_token(&token).request_async(&http).await;
    http.outcome(answer, Some(&token))
}

/// Exchanges what a login brought back for a pair.
pub async fn exchange_code(cal_com: &CalCom, client: &OAuthClient, authorized: Authorized) -> Outcome {
    let http = Http::to(cal_com);
    let Some(oauth) = oauth_client(client) else { return unusable() };
    let request = oauth.exchange_code(AuthorizationCode::new(authorized.code)).set_pkce_verifier(authorized.verifier);
    let answer = request.set_redirect_uri(Cow::Owned(authorized.redirect)).request_async(&http).await;
    http.outcome(answer, None)
}

fn unusable() -> Outcome {
    Outcome::NotAsked("the token endpoint's address cannot be written".to_owned())
}

type OAuth = BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// The client's id and secret go in the body, as Cal.com takes them (FACTS §1).
fn oauth_client(client: &OAuthClient) -> Option<OAuth> {
    // Only the path counts: the wire knows where Cal.com is.
    let address = TokenUrl::new(format!("https://upstream{TOKEN_PATH}")).ok()?;
    let made = BasicClient::new(ClientId::new(client.client_id.clone())).set_auth_type(AuthType::RequestBody);
    let made = match &client.client_secret {
        Some(secret) => made.set_client_secret(ClientSecret::new(secret.with_text(str::to_owned))),
        None => made,
    };
    Some(made.set_token_uri(address))
}

/// The gateway's wire as `oauth2` sees it, and what it saw of the answer.
struct Http<'u> {
    cal_com: &'u CalCom,
    seen: Mutex<Option<(StatusCode, Receipt)>>,
}

impl<'u> Http<'u> {
    fn to(cal_com: &'u CalCom) -> Self {
        Self { cal_com, seen: Mutex::new(None) }
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, CallFault> {
        let (head, body) = request.into_parts();
        let called = self
            .cal_com
            .call(Call {
                path: head.uri.path().to_owned(),
                content_type: HeaderValue::from_static("application/x-www-form-urlencoded"),
                headers: HeaderMap::new(),
                body: wiped(body),
            })
            .await?;
        let receipt = Receipt::of(&called.headers, wall());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((called.status, receipt));
        let mut response = HttpResponse::new(called.body.to_vec());
        *response.status_mut() = called.status;
        *response.headers_mut() = called.headers;
        Ok(response)
    }

    /// What an answer means. Without a new refresh token the one that was sent stays good (RFC 6749 §6).
    fn outcome(&self, answer: Answered, sent: Option<&RefreshToken>) -> Outcome {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((status, receipt)) = seen else {
            return match answer {
                Err(RequestTokenError::Request(fault)) => unanswered(fault),
                _ => Outcome::NotAsked("the request cannot be written".to_owned()),
            };
        };
        match answer {
            Ok(tokens) => {
                let refresh = tokens.refresh_token().or(sent).map(|token| token.secret().as_str());
                let pair = of_oauth(tokens.access_token().secret(), refresh, tokens.expires_in(), receipt);
                pair.map_or_else(|| Outcome::Unknown("the answer holds no usable tokens".to_owned()), Outcome::Renewed)
            }
            Err(RequestTokenError::ServerResponse(error)) => match error.error() {
                BasicErrorResponseType::InvalidGrant => {
                    let what = if sent.is_some() { "refresh token" } else { "code" };
                    Outcome::Refused(format!("Cal.com refused the {what} (invalid_grant)"))
                }
                BasicErrorResponseType::InvalidClient | BasicErrorResponseType::UnauthorizedClient => {
                    client_refused(status)
                }
                _ => failed(status),
            },
            Err(_) => failed(status),
        }
    }
}

type Answered = Result<BasicTokenResponse, RequestTokenError<CallFault, BasicErrorResponse>>;

impl<'c> AsyncHttpClient<'c> for Http<'_> {
    type Error = CallFault;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, CallFault>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

async fn refresh_managed(cal_com: &CalCom, client: &ManagedUsers, token: &Secret) -> Outcome {
    let body = token.with_text(|token| serde_json::to_vec(&serde_json::json!({ "refreshToken": token })));
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
    match cal_com.call(Call { path, content_type, headers, body: wiped(body) }).await {
        Ok(called) => managed_outcome(&called, refusals),
        Err(fault) => unanswered(fault),
    }
}

fn managed_outcome(called: &Called, refusals: &[StatusCode]) -> Outcome {
    let receipt = Receipt::of(&called.headers, wall());
    match called.status {
        status if status.is_success() => match of_managed(&called.body, receipt) {
            Some((pair, _)) => Outcome::Renewed(pair),
            None => Outcome::Unknown("the answer holds no usable tokens".to_owned()),
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
        status => failed(status),
    }
}

#[derive(Deserialize)]
struct CalError<'a> {
    status: Cow<'a, str>,
}

/// What was asked with is as good as before, and is asked with again when the client is mended.
fn client_refused(status: StatusCode) -> Outcome {
    Outcome::NotAsked(format!("Cal.com refused the client's id or secret ({status})"))
}

/// An answer that is neither tokens nor a refusal of the token.
fn failed(status: StatusCode) -> Outcome {
    let why = format!("Cal.com's token endpoint answered {status}");
    // What failed inside may have gone through; what was turned away before it began did not.
    if status.is_server_error() { Outcome::Unknown(why) } else { Outcome::NotAsked(why) }
}

fn unanswered(fault: CallFault) -> Outcome {
    match fault {
        CallFault::NotSent(why) => Outcome::NotAsked(why),
        CallFault::Unknown(why) => Outcome::Unknown(why),
    }
}

/// Bytes that are wiped when the wire is done with them.
fn wiped(body: Vec<u8>) -> Bytes {
    struct Wiped(Zeroizing<Vec<u8>>);
    impl AsRef<[u8]> for Wiped {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Wiped(Zeroizing::new(body)))
}
