//! Redirect URI of a login (RFC 8252 §7.3): an axum application with one route.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use http::{StatusCode, Uri};
use oauth2::CsrfToken;
use oauth2::url::Url;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::untrusted::sanitize;

/// Time that the last response has to reach the browser, 2 s. A browser may keep other connections open.
const FINAL_RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Result of a login: the code, or the reason why there is none.
type LoginResult = Result<String, String>;

/// A login that waits for its redirect.
struct Login {
    state: CsrfToken,
    result: watch::Sender<Option<LoginResult>>,
}

/// Relation of a URL to a login.
pub(super) enum Callback {
    /// The redirect of the login.
    Result(LoginResult),
    /// The redirect of another login, such as an older one or a forged one.
    AnotherLogin,
    /// Not the redirect of a login.
    Unrelated,
}

/// Waits for the browser's redirect of the login with that `state`. Returns the code.
///
/// # Errors
/// Reason why there is no code.
pub(super) async fn wait_for_code(listener: TcpListener, state: &CsrfToken) -> LoginResult {
    let listener = tokio::net::TcpListener::from_std(listener).map_err(|fault| fault.to_string())?;
    let (sender, mut result) = watch::channel(None);
    let page = get(callback).with_state(Arc::new(Login { state: state.clone(), result: sender }));
    let mut ended = result.clone();
    let stop = async move { drop(ended.wait_for(Option::is_some).await) };
    let serving = axum::serve(listener, page.into_make_service()).with_graceful_shutdown(stop);
    let late = async {
        drop(result.wait_for(Option::is_some).await);
        sleep(FINAL_RESPONSE_TIMEOUT).await;
    };
    tokio::select! {
        served = serving.into_future() => served.map_err(|fault| fault.to_string())?,
        () = late => {}
    }
    result.borrow().clone().unwrap_or_else(|| Err("the callback page ended before the redirect".to_owned()))
}

async fn callback(State(login): State<Arc<Login>>, uri: Uri) -> (StatusCode, &'static str) {
    let result = match parse_callback(&format!("http://127.0.0.1{uri}"), &login.state) {
        Callback::Unrelated => return (StatusCode::NOT_FOUND, "Page not found."),
        Callback::AnotherLogin => {
            return (StatusCode::BAD_REQUEST, "This redirect belongs to another login. calgate is still waiting.");
        }
        Callback::Result(result) => result,
    };
    let response = match &result {
        Ok(_) => (StatusCode::OK, "calgate has received the code. You can close this page."),
        Err(_) => (StatusCode::BAD_REQUEST, "Access was not granted. See the output of calgate."),
    };
    // The browser may load the page again, with another code, while its other connections are still open.
    let is_first = login.result.send_if_modified(|kept| {
        let is_first = kept.is_none();
        kept.get_or_insert(result);
        is_first
    });
    if is_first { response } else { (StatusCode::CONFLICT, "This login is over: calgate has a result already.") }
}

/// Parses the URL of a redirect.
pub(super) fn parse_callback(url: &str, state: &CsrfToken) -> Callback {
    let Some(url) = Url::parse(url).ok().filter(|url| url.path() == "/callback") else {
        return Callback::Unrelated;
    };
    let value = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    if value("state").as_deref() != Some(state.secret()) {
        return Callback::AnotherLogin;
    }
    if let Some(error) = value("error") {
        let known = error.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let error = if known { &*error } else { "unknown error" };
        let description = value("error_description").map(sanitize).filter(|text| !text.is_empty());
        let description = description.map(|text| format!(": \"{text}\"")).unwrap_or_default();
        return Callback::Result(Err(format!("Cal.com did not grant access ({error}){description}")));
    }
    value("code").map_or(Callback::Unrelated, |code| Callback::Result(Ok(code)))
}
