//! OAuth token endpoint: `POST /v2/auth/oauth2/token` (RFC 6749, FACTS §1).
//!
//! The `oauth2` crate writes the requests. calgate reads the responses itself, because the crate rejects a pair for an
//! unexpected additional field.

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
use crate::refresh::token_endpoint::{CalClient, client_refused, failed, unanswered, unreadable};
use crate::refresh::unix_millis;
use crate::secret::{Secret, wiped};
use crate::untrusted::sanitize;

const TOKEN_PATH: &str = "/v2/auth/oauth2/token";

/// Result of a login in the browser.
pub struct Authorized {
    /// Authorization code.
    pub code: String,
    /// Code verifier, which proves that this process requested the code (RFC 7636). `None` if the client uses only its secret.
    pub verifier: Option<PkceCodeVerifier>,
    /// Redirect URI of the login.
    pub redirect: RedirectUrl,
}

/// Exchanges a refresh token for a new pair.
pub(super) async fn refresh(cal_client: &CalClient, client: &OAuthClient, token: &Secret) -> Outcome {
    let http = OAuthHttp::to(cal_client);
    let Some(oauth) = oauth_client(client) else { return unusable() };
    let sent = RefreshToken::new(token.expose(str::to_owned));
    let answer = oauth.exchange_refresh_token(&sent).request_async(&http).await;
    match http.called() {
        // Without a new refresh token, the old one stays valid (RFC 6749 §6).
        Some(called) => outcome(&called, Some(sent.secret())),
        None => not_called(answer.err()),
    }
}

/// Exchanges the result of a login for a pair.
///
/// # Errors
/// Reason why there is no pair, with the description of the endpoint.
pub async fn exchange_code(
    cal_client: &CalClient,
    client: &OAuthClient,
    authorized: Authorized,
) -> Result<TokenPair, String> {
    let http = OAuthHttp::to(cal_client);
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
    let description = description(&called.body).map(|text| sanitize(redact(text, &hidden)));
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

/// Creates a client that sends its id and secret in the body, as Cal.com requires (FACTS §1).
fn oauth_client(client: &OAuthClient) -> Option<OAuth> {
    // Only the path matters, because `Upstream` has the address of Cal.com.
    let address = TokenUrl::new(format!("https://upstream{TOKEN_PATH}")).ok()?;
    let made = BasicClient::new(ClientId::new(client.client_id.clone())).set_auth_type(AuthType::RequestBody);
    let made = match &client.client_secret {
        Some(secret) => made.set_client_secret(ClientSecret::new(secret.expose(str::to_owned))),
        None => made,
    };
    Some(made.set_token_uri(address))
}

/// HTTP client for the `oauth2` crate. It keeps the response and returns an empty one, so that there is no second copy of
/// the tokens.
struct OAuthHttp<'u> {
    cal_client: &'u CalClient,
    called: Mutex<Option<ApiResponse>>,
}

impl<'u> OAuthHttp<'u> {
    fn to(cal_client: &'u CalClient) -> Self {
        Self { cal_client, called: Mutex::new(None) }
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ApiError> {
        let (head, body) = request.into_parts();
        let called = self
            .cal_client
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

    /// Takes the response, if there was one.
    fn called(&self) -> Option<ApiResponse> {
        self.called.lock().take()
    }
}

impl<'c> AsyncHttpClient<'c> for OAuthHttp<'_> {
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

/// Returns what a response means for the grant in the request.
fn outcome(called: &ApiResponse, refresh: Option<&str>) -> Outcome {
    if called.status.is_success() {
        let receipt = ReceivedAt::of(&called.headers, unix_millis());
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

/// Error response (RFC 6749 §5.2).
#[derive(Deserialize)]
struct OAuthError<'a> {
    error: Cow<'a, str>,
}

/// Returns the description of an error: that of RFC 6749, or that of Cal.com's other errors (FACTS §6).
fn description(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let places = ["/error_description", "/error/message", "/message/0", "/message"];
    places.iter().find_map(|place| body.pointer(place)?.as_str()).map(str::to_owned)
}

/// Replaces each of the `hidden` texts.
fn redact(mut text: String, hidden: &[String]) -> String {
    for secret in hidden.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(&**secret, "(hidden)");
    }
    text
}
