//! Handles one request, from its head to its response.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, CONTENT_LENGTH, CONTENT_TYPE, LOCATION,
};
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;
use tokio::time::sleep;

use super::answer::{self, Answer, Fault};
use super::authentication;
use super::jwt;
use super::presented::Presented;
use super::routes::{self, NoRoute, Route};
use super::seen::{Number, Seen};
use super::state::State;
use super::token_operations;
use super::tokens::Code;
use super::trackers::Tracker;
use super::wishes::Wishes;

/// Maximum size of a JSON body that Cal.com reads (`100kb` of Express).
const MOST_JSON: u64 = 100 * 1024;

/// Signal to close the connection without a response.
#[derive(Debug)]
pub(super) struct Cut;

/// Answers a request.
pub(super) async fn answer(state: Arc<State>, peer: IpAddr, request: Request<Incoming>) -> Result<Answer, Cut> {
    let (head, body) = request.into_parts();
    let wishes = Wishes::of(head.uri.query().unwrap_or_default());
    let number = state.log.note(|| seen(&head));
    let latency = state.options.latency + state.options.jitter.mul_f64(jwt::random_part());
    pause(latency / 2).await;
    let mut answer = respond(&state, peer, &head, body, number, &wishes).await?;
    if head.method == Method::HEAD {
        answer::drop_content(&mut answer);
    }
    pause(latency / 2 + wishes.delay).await;
    state.log.amend(number, |seen| seen.status = Some(answer.status().as_u16()));
    Ok(answer)
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

/// Finds the operation, reads the body, counts the request and then authenticates it.
///
/// A request that fails authentication counts. A request without an operation, with an unreadable body or with an unknown API key
/// does not (FACTS §2).
async fn respond(
    state: &State,
    peer: IpAddr,
    head: &Parts,
    body: Incoming,
    number: Number,
    wishes: &Wishes,
) -> Result<Answer, Cut> {
    if head.method == Method::OPTIONS {
        return Ok(preflight());
    }
    if let Some(status) = wishes.edge {
        return Ok(answer::whole(status, "text/html", "<html><h1>Sorry</h1></html>".to_owned()));
    }
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let now = state.clock.now();
    if head.uri.path() == "/auth/oauth2/authorize" {
        return Ok(authorize(state, head).unwrap_or_else(|fault| fault.answer(target, now)));
    }
    let route = routes::find(&head.method, head.uri.path(), &head.headers);
    let endpoint = route.as_ref().ok().map(|route| route.endpoint);
    state.log.amend(number, |seen| seen.operation = endpoint.map(ToString::to_string));
    let body = read(state, head, body, number).await?;
    let tracker = Tracker::of(&head.headers, peer);
    let uncounted = uncounted(state, head, route, body, &tracker);
    let (route, body) = match uncounted {
        Ok(counted) => counted,
        Err(fault) => return Ok(fault.answer(target, now)),
    };
    let verdict = state.trackers.hit(tracker, endpoint, now);
    let granted = if verdict.refused {
        Err(Fault::new(429, "ThrottlerException", "ThrottlerException: Too Many Requests"))
    } else {
        grant(state, head, &route, &body, wishes)
    };
    let is_token_operation = granted.as_ref().is_ok_and(|granted| granted.is_token_operation);
    if is_token_operation && state.loses_answer() {
        return Err(Cut);
    }
    let mut answer = granted.map_or_else(|fault| fault.answer(target, now), |granted| granted.answer);
    answer::add_limits(&mut answer, &verdict);
    Ok(answer)
}

/// Returns the route and body of a request that counts, or the response to one that does not count (FACTS §2).
fn uncounted(
    state: &State,
    head: &Parts,
    route: Result<Route, NoRoute>,
    body: Result<Vec<u8>, Fault>,
    tracker: &Tracker,
) -> Result<(Route, Vec<u8>), Fault> {
    let route = route.map_err(|no_route| match no_route {
        NoRoute::Unknown => {
            let message = format!("Cannot {} {}", head.method, head.uri.path());
            Fault::new(404, "NotFoundException", message)
        }
        NoRoute::BrokenEscape => Fault::new(400, "BadRequestException", "Failed to decode a parameter of the path"),
    })?;
    let body = body?;
    let is_json = calgate::headers::media::is_json(&head.headers);
    if is_json && !body.is_empty() && serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err() {
        return Err(Fault::new(400, "BadRequestException", "Unexpected token in JSON"));
    }
    match tracker {
        Tracker::ApiKey(key) if !state.api_keys().contains(key) => {
            Err(Fault::unauthorized("Your api key is not valid"))
        }
        _ => Ok((route, body)),
    }
}

struct Granted {
    answer: Answer,
    is_token_operation: bool,
}

/// Answers a request that is within the limits.
fn grant(state: &State, head: &Parts, route: &Route, body: &[u8], wishes: &Wishes) -> Result<Granted, Fault> {
    let (given, now) = (Presented::of(&head.headers), state.clock.now());
    authentication::guard(state, route, &given, now)?;
    let caller = authentication::check(state, route, &given, now)?;
    if route.endpoint.to_string() == "GET /v2/oauth-clients" {
        // Without an organization, also for a valid credential (FACTS §1).
        return Err(Fault::unauthorized("User is not in an organization: Organization ID not found"));
    }
    if let Some(outcome) = token_operations::answer(state, route, &caller, body, now) {
        let answer = match outcome {
            Ok(answer) => answer,
            Err(fault) => fault.answer(head.uri.path(), now),
        };
        return Ok(Granted { answer, is_token_operation: true });
    }
    if let Some(bearer) = given.bearer.filter(|_| state.options.forbidden || wishes.forbidden) {
        return Err(Fault::new(403, "ForbiddenException", format!("insufficient permissions of the token {bearer}")));
    }
    if let Some(status) = wishes.status {
        return Err(Fault::new(status, "AskedFor", "the request asked to be answered so"));
    }
    let answer = match wishes.body {
        Some(length) => answer::filler(length, wishes.pause),
        None => answer::success(&json!({
            "operation": route.endpoint.to_string(),
            "parameters": route.parameters.iter().cloned().collect::<BTreeMap<_, _>>(),
            "query": head.uri.query(),
            "version": route.version,
            "credential": caller.kind(),
            "bodyLength": body.len(),
            "headers": wishes.headers.then(|| fields(head)),
        })),
    };
    Ok(Granted { answer, is_token_operation: false })
}

/// Reads the whole body and keeps as much as Cal.com does. Refuses JSON that is too long. Keeps only the start of other bodies.
async fn read(state: &State, head: &Parts, mut body: Incoming, number: Number) -> Result<Result<Vec<u8>, Fault>, Cut> {
    let (mut kept, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        match frame.map_err(|_| Cut)?.into_data() {
            Ok(piece) => {
                length += piece.len() as u64;
                if length <= MOST_JSON {
                    kept.extend_from_slice(&piece);
                }
                state.log.amend(number, |seen| seen.take_body(&piece));
            }
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                state.log.amend(number, |seen| seen.trailers = pairs(&trailers));
            }
        }
    }
    let is_json = calgate::headers::media::is_json(&head.headers);
    if is_json && length > MOST_JSON {
        return Ok(Err(Fault::new(413, "PayloadTooLargeException", "request entity too large")));
    }
    Ok(Ok(kept))
}

/// Returns the header fields that arrived, without credentials, because a response never contains one.
fn fields(head: &Parts) -> BTreeMap<String, String> {
    let mut fields: BTreeMap<String, String> = pairs(&head.headers).into_iter().collect();
    fields.retain(|name, _| name != "authorization" && name != "x-cal-secret-key");
    fields
}

fn seen(head: &Parts) -> Seen {
    let target = match head.version {
        // In HTTP/2, every request contains scheme and authority in addition to its path.
        Version::HTTP_2 => head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        _ => head.uri.to_string(),
    };
    Seen {
        method: head.method.to_string(),
        target,
        version: format!("{:?}", head.version),
        headers: pairs(&head.headers),
        body: Vec::new(),
        body_length: 0,
        trailers: Vec::new(),
        operation: None,
        status: None,
    }
}

fn pairs(fields: &http::HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    fields.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// Answers `OPTIONS` for any origin and without a credential (FACTS §5).
fn preflight() -> Answer {
    let mut answer = answer::whole(204, "text/plain", String::new());
    let fields = [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET,HEAD,PUT,PATCH,POST,DELETE"),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "x-cal-client-id,x-cal-secret-key,x-cal-platform-embed,cal-api-version,Accept,Authorization,Content-Type,Origin",
        ),
    ];
    for (name, value) in fields {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer.headers_mut().remove(CONTENT_TYPE);
    answer.headers_mut().remove(CONTENT_LENGTH);
    answer
}

/// Simulates the page where a user grants access to a client. It agrees at once and redirects with a code.
fn authorize(state: &State, head: &Parts) -> Result<Answer, Fault> {
    let query: Vec<(String, String)> =
        form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let field = |name: &str| query.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    let bad = |message: &str| Fault::new(400, "BadRequestException", message);
    let client = field("client_id").filter(|id| state.options.credentials.oauth_clients.iter().any(|(c, _)| c == id));
    let client = client.ok_or_else(|| bad("client_id names no OAuth client"))?;
    let redirect_uri = field("redirect_uri").ok_or_else(|| bad("redirect_uri is missing"))?;
    if field("code_challenge").is_some() && field("code_challenge_method").as_deref() != Some("S256") {
        return Err(bad("code_challenge_method has to be S256"));
    }
    let challenge = field("code_challenge");
    let code = state.tokens().new_code(Code { client, redirect_uri: redirect_uri.clone(), challenge });
    let mut back = form_urlencoded::Serializer::new(String::new());
    back.append_pair("code", &code);
    if let Some(text) = field("state") {
        back.append_pair("state", &text);
    }
    let separator = if redirect_uri.contains('?') { '&' } else { '?' };
    let location = HeaderValue::try_from(format!("{redirect_uri}{separator}{}", back.finish()));
    let mut answer = answer::whole(302, "text/plain", String::new());
    *answer.status_mut() = StatusCode::FOUND;
    answer.headers_mut().insert(LOCATION, location.map_err(|_| bad("redirect_uri is not one"))?);
    Ok(answer)
}
