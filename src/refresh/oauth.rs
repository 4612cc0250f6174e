//! The OAuth token endpoint: `POST /v2/auth/oauth2/token` (RFC 6749, FACTS §1).
//!
//! The `oauth2` crate writes the requests. calgate reads the responses itself, because the crate discards a pair for an odd
//! field beside it.

use std::borrow::Cow;
use std::pin::Pin;

use http::{HeaderMap, HeaderValue};
use oauth2::basic::BasicClient;
use oauth2::{
    AsyncHttpClient, AuthType, AuthorizationCode, ClientId, ClientSecret, EndpointNotSet, EndpointSet, HttpRequest,
    HttpResponse, PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError, TokenUrl,
};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;

use crate::credential::OAuthClient;
use crate::credential::lifecycle::Outcome;
use crate::credential::received_tokens::{ReceivedAt, from_oauth};
use crate::credential::stored_token::TokenPair;
use crate::forward::{ApiError, ApiRequest, ApiResponse};
use crate::refresh::token_endpoint::{CalCom, client_refused, failed, unanswered, unreadable};
use crate::refresh::wall;
use crate::secret::{Secret, wiped};
use crate::untrusted::sanitize;

const TOKEN_PATH: &str = "/v2/auth/oauth2/token";

/// What a login brings back from the browser.
pub struct Authorized {
    /// The code.
    pub code: String,
    /// What proves that this process asked for it (RFC 7636); `None` where the client uses its secret alone.
    pub verifier: Option<PkceCodeVerifier>,
    /// Where the browser was sent.
    pub redirect: RedirectUrl,
}

/// Exchanges a refresh token for a new pair.
pub(super) async fn refresh(cal_com: &CalCom, client: &OAuthClient, token: &Secret) -> Outcome {
    let http = Http::to(cal_com);
    let Some(oauth) = oauth_client(client) else { return unusable() };
    let sent = RefreshToken::new(token.expose(str::to_owned));
    let answer = oauth.exchange_refresh_token(&sent).request_async(&http).await;
    match http.called() {
        // Without a new refresh token the one that was sent stays good (RFC 6749 §6).
        Some(called) => outcome(&called, Some(sent.secret())),
        None => not_called(answer.err()),
    }
}

/// Exchanges what a login brought back for a pair.
///
/// # Errors
/// Why there is none, with the endpoint's own description.
pub async fn exchange_code(
    cal_com: &CalCom,
    client: &OAuthClient,
    authorized: Authorized,
) -> Result<TokenPair, String> {
    let http = Http::to(cal_com);
    let Authorized { code, verifier, redirect } = authorized;
    let oauth = oauth_client(client).ok_or("the token endpoint's address cannot be written")?;
    let mut request = oauth.exchange_code(AuthorizationCode::new(code.clone()));
    let mut hidden = vec![code];
    hidden.extend(client.client_secret.as_ref().map(|secret| secret.expose(str::to_owned)));
    if let Some(verifier) = verifier {
        hidden.push(verifier.secret().to_owned());
        request = request.set_pkce_verifier(verifier);
    }
    let answer = request.set_redirect_uri(Cow::Owned(redirect)).request_async(&http).await;
    let Some(called) = http.called() else { return not_called(answer.err()).into_pair() };
    let description = description(&called.body).map(|text| sanitize(without(text, &hidden)));
    let outcome = outcome(&called, None).into_pair();
    outcome.map_err(|why| match description {
        Some(description) if !description.is_empty() => format!("{why}: \"{description}\""),
        _ => why,
    })
}

fn unusable() -> Outcome {
    Outcome::NotSent("the token endpoint's address cannot be written".to_owned())
}

type OAuth = BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// The client's id and secret go in the body, as Cal.com takes them (FACTS §1).
fn oauth_client(client: &OAuthClient) -> Option<OAuth> {
    // Only the path counts: the wire knows where Cal.com is.
    let address = TokenUrl::new(format!("https://upstream{TOKEN_PATH}")).ok()?;
    let made = BasicClient::new(ClientId::new(client.client_id.clone())).set_auth_type(AuthType::RequestBody);
    let made = match &client.client_secret {
        Some(secret) => made.set_client_secret(ClientSecret::new(secret.expose(str::to_owned))),
        None => made,
    };
    Some(made.set_token_uri(address))
}

/// The gateway's HTTP client as `oauth2` sees it. It keeps the response, and hands `oauth2` an empty one: no second copy of
/// the tokens is made.
struct Http<'u> {
    cal_com: &'u CalCom,
    called: Mutex<Option<ApiResponse>>,
}

impl<'u> Http<'u> {
    fn to(cal_com: &'u CalCom) -> Self {
        Self { cal_com, called: Mutex::new(None) }
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ApiError> {
        let (head, body) = request.into_parts();
        let called = self
            .cal_com
            .call(ApiRequest {
                path: head.uri.path().to_owned(),
                content_type: HeaderValue::from_static("application/x-www-form-urlencoded"),
                headers: HeaderMap::new(),
                body: wiped(body),
            })
            .await?;
        *self.called.lock() = Some(called);
        Ok(HttpResponse::new(Vec::new()))
    }

    /// The response, if there was one.
    fn called(&self) -> Option<ApiResponse> {
        self.called.lock().take()
    }
}

impl<'c> AsyncHttpClient<'c> for Http<'_> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, ApiError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

fn not_called<T: oauth2::ErrorResponse>(fault: Option<RequestTokenError<ApiError, T>>) -> Outcome {
    match fault {
        Some(RequestTokenError::Request(fault)) => unanswered(fault),
        _ => Outcome::NotSent("the request cannot be written".to_owned()),
    }
}

/// What a response means for the grant that was sent.
fn outcome(called: &ApiResponse, refresh: Option<&str>) -> Outcome {
    if called.status.is_success() {
        let receipt = ReceivedAt::of(&called.headers, wall());
        return from_oauth(&called.body, refresh, receipt).map_or_else(unreadable, Outcome::Renewed);
    }
    let error = serde_json::from_slice::<OAuthError<'_>>(&called.body).ok().filter(|_| called.status.is_client_error());
    match error.as_ref().map(|error| &*error.error) {
        Some("invalid_grant") => {
            let what = if refresh.is_some() { "refresh token" } else { "code" };
            Outcome::Refused(format!("Cal.com refused the {what} (invalid_grant)"))
        }
        Some("invalid_client" | "unauthorized_client") => client_refused(called.status),
        _ => failed(called),
    }
}

/// RFC 6749 §5.2.
#[derive(Deserialize)]
struct OAuthError<'a> {
    error: Cow<'a, str>,
}

/// The endpoint's own words: RFC 6749's, or those of Cal.com's other errors (FACTS §6).
fn description(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let places = ["/error_description", "/error/message", "/message/0", "/message"];
    places.iter().find_map(|place| body.pointer(place)?.as_str()).map(str::to_owned)
}

/// The text without any of the `hidden` ones.
fn without(mut text: String, hidden: &[String]) -> String {
    for secret in hidden.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(&**secret, "(hidden)");
    }
    text
}
