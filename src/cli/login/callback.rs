//! The page that Cal.com sends the browser back to: an axum application with one route.

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
const LAST_RESPONSE: Duration = Duration::from_secs(2);

/// Result of a login: the code, or why there is none.
type Answer = Result<String, String>;

/// A login that waits for its answer.
struct Login {
    state: CsrfToken,
    answer: watch::Sender<Option<Answer>>,
}

/// What an address is to a login.
pub(super) enum Callback {
    /// The answer to it.
    Answer(Answer),
    /// The answer to another login: of an older page, or of a stranger's.
    OtherLogin,
    /// No answer to a login.
    Unrelated,
}

/// Serves the page until the browser brings the answer to the login with that `state`. Returns the code.
///
/// # Errors
/// Why there is none.
pub(super) async fn wait_for_code(listener: TcpListener, state: &CsrfToken) -> Answer {
    let listener = tokio::net::TcpListener::from_std(listener).map_err(|fault| fault.to_string())?;
    let (sender, mut answer) = watch::channel(None);
    let page = get(callback).with_state(Arc::new(Login { state: state.clone(), answer: sender }));
    let mut answered = answer.clone();
    let stop = async move { drop(answered.wait_for(Option::is_some).await) };
    let serving = axum::serve(listener, page.into_make_service()).with_graceful_shutdown(stop);
    let late = async {
        drop(answer.wait_for(Option::is_some).await);
        sleep(LAST_RESPONSE).await;
    };
    tokio::select! {
        served = serving.into_future() => served.map_err(|fault| fault.to_string())?,
        () = late => {}
    }
    answer.borrow().clone().unwrap_or_else(|| Err("the page ended before there was an answer".to_owned()))
}

async fn callback(State(login): State<Arc<Login>>, uri: Uri) -> (StatusCode, &'static str) {
    let answer = match read(&format!("http://127.0.0.1{uri}"), &login.state) {
        Callback::Unrelated => return (StatusCode::NOT_FOUND, "This is not the page you are looking for."),
        Callback::OtherLogin => {
            return (StatusCode::BAD_REQUEST, "This is of another login; calgate still waits.");
        }
        Callback::Answer(answer) => answer,
    };
    let response = match &answer {
        Ok(_) => (StatusCode::OK, "calgate has what it needs. You can close this page."),
        Err(_) => (StatusCode::BAD_REQUEST, "calgate was not granted access. See its output."),
    };
    // The page may be loaded again, with another code, while the browser's other connections are still open.
    let is_first = login.answer.send_if_modified(|kept| {
        let is_first = kept.is_none();
        kept.get_or_insert(answer);
        is_first
    });
    if is_first { response } else { (StatusCode::CONFLICT, "This login is over: calgate has an answer already.") }
}

/// Reads the address that the browser was sent back to.
pub(super) fn read(address: &str, state: &CsrfToken) -> Callback {
    let Some(address) = Url::parse(address).ok().filter(|address| address.path() == "/callback") else {
        return Callback::Unrelated;
    };
    let value = |name: &str| address.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    if value("state").as_deref() != Some(state.secret()) {
        return Callback::OtherLogin;
    }
    if let Some(error) = value("error") {
        let known = error.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let error = if known { &*error } else { "unknown error" };
        let said = value("error_description").map(sanitize).filter(|said| !said.is_empty());
        let said = said.map(|said| format!(": \"{said}\"")).unwrap_or_default();
        return Callback::Answer(Err(format!("access was not granted ({error}){said}")));
    }
    value("code").map_or(Callback::Unrelated, |code| Callback::Answer(Ok(code)))
}
