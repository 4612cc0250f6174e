//! Explanation of the decision about a request, with the rule, without sending the request (`calgate explain`, `POST /explain`).
//!
//! [`explain`] calls the same stages as the request path in the same order, and charges nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use serde::Serialize;

use crate::catalog::{ALL_METHODS, Endpoint, RouteMatch};
use crate::entitle::{Grant, Plan};
use crate::gateway::Snapshot;
use crate::headers::{CLIENT_ID, MANAGED_USER, SECRET_KEY};
use crate::identify::{Caller, Consumer, ConsumerId, Identity};
use crate::ratelimit::ThrottleReason;
use crate::ratelimit::status::BudgetStatus;
use crate::refusal::Refusal;

/// Decision about a request.
#[derive(Debug, Serialize)]
pub struct Explanation<'a> {
    /// `allow` or `deny`.
    pub decision: &'static str,
    /// Header without which calgate would deny the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_with: Option<&'static str>,
    /// Error code of the gateway, if it denies the request.
    pub code: Option<&'static str>,
    /// HTTP status, if it denies the request.
    pub status: Option<u16>,
    /// Methods that the path supports, if the method decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<String>,
    /// Endpoint that matches the request.
    pub endpoint: Option<ExplainedEndpoint<'a>>,
    /// Plan of the credential.
    pub plan: Option<&'a str>,
    /// Rule that decided.
    pub rule: String,
    /// Name of the caller.
    pub consumer: &'a str,
    /// Name of the credential that calgate would send.
    pub credential: Option<&'a str>,
    /// State of a renewable credential, such as `fresh` or `needs-login`. Only a running gateway reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_state: Option<&'static str>,
    /// Tier of the caller.
    pub tier: Option<&'a str>,
    /// Budget of the request: that of the credential, or of an operation that Cal.com counts separately. Absent for managed
    /// users, who have budgets of their own.
    pub budget: Option<ExplainedBudget>,
    /// Whether the limit store is unavailable. Only a running gateway with such a store reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_lost: Option<bool>,
}

/// Budget of a credential or operation.
#[derive(Debug, Serialize)]
pub struct ExplainedBudget {
    /// Whether Cal.com counts the operation separately.
    apart: bool,
    limit: u32,
    /// Current state. Only a running gateway reports it.
    #[serde(flatten)]
    pub now: Option<BudgetSnapshot>,
}

/// Current state of a budget.
#[derive(Debug, Serialize)]
pub struct BudgetSnapshot {
    used: u32,
    in_flight: u32,
    waiting: usize,
    remaining: Option<u32>,
    foreign: u32,
    held_by: Option<&'static str>,
}

impl From<(BudgetStatus, bool)> for ExplainedBudget {
    fn from((standing, apart): (BudgetStatus, bool)) -> Self {
        let BudgetStatus { limit, used, in_flight, waiting, remaining, foreign, held_by } = standing;
        let held_by = held_by.map(ThrottleReason::name);
        Self { apart, limit, now: Some(BudgetSnapshot { used, in_flight, waiting, remaining, foreign, held_by }) }
    }
}

/// Endpoint that matches a request.
#[derive(Debug, Serialize)]
pub struct ExplainedEndpoint<'a> {
    method: &'a str,
    template: &'a str,
    tag: &'a str,
    prefix: &'static str,
}

impl<'a> ExplainedEndpoint<'a> {
    fn of(endpoint: &'a Endpoint) -> Self {
        Self {
            method: endpoint.method.as_str(),
            template: endpoint.template.as_str(),
            tag: endpoint.tag.as_str(),
            prefix: endpoint.tag.prefix().name(),
        }
    }
}

/// Request to explain.
#[derive(Debug, Clone, Copy)]
pub struct ExplainRequest<'a> {
    /// Method.
    pub method: &'a Method,
    /// Target. The query is ignored, because no decision depends on it.
    pub target: &'a str,
    /// Managed user that the request names, if it names one.
    pub managed_user: Option<&'a str>,
}

/// Client that would send the request.
#[derive(Debug, Clone, Copy)]
pub enum Client<'a> {
    /// Consumer with a gateway key.
    Consumer(&'a Consumer),
    /// Client without a key.
    Anonymous,
    /// Client with a Cal.com credential of its own.
    Passthrough(PassthroughKind),
}

/// Kind of credential that a passthrough client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassthroughKind {
    /// API key.
    ApiKey,
    /// Access token.
    Token,
    /// Id and secret of a platform client.
    PlatformClient,
}

impl PassthroughKind {
    /// All kinds by name.
    pub const NAMES: [(&'static str, Self); 3] =
        [("api-key", Self::ApiKey), ("token", Self::Token), ("platform-client", Self::PlatformClient)];

    /// Returns the headers of such a client, with invented values. Only Cal.com can tell whether a value is valid.
    fn headers(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        match self {
            Self::ApiKey => drop(headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer cal_live_explain"))),
            Self::Token => drop(headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer explain.access.token"))),
            Self::PlatformClient => {
                headers.insert(CLIENT_ID, HeaderValue::from_static("explain-client"));
                headers.insert(SECRET_KEY, HeaderValue::from_static("explain-secret"));
            }
        }
        headers
    }
}

impl<'a> Client<'a> {
    /// Returns the caller that the gateway would identify.
    #[expect(clippy::disallowed_methods, reason = "expiry dates are compared with the time of day")]
    fn identify(self, snapshot: &'a Snapshot) -> Result<Caller<'a>, Refusal> {
        let headers = match self {
            Self::Consumer(consumer) => return Ok(Caller::of_consumer(consumer)),
            Self::Anonymous => HeaderMap::new(),
            Self::Passthrough(kind) => kind.headers(),
        };
        snapshot.consumers.identify(&headers, IpAddr::V4(Ipv4Addr::LOCALHOST), SystemTime::now())
    }
}

/// Explains the decision about a request of `client`.
pub fn explain<'a>(snapshot: &'a Snapshot, client: Client<'a>, request: ExplainRequest<'a>) -> Explanation<'a> {
    let mut explanation = Explanation {
        decision: "allow",
        only_with: None,
        code: None,
        status: None,
        allow: None,
        endpoint: None,
        plan: None,
        rule: String::new(),
        consumer: "-",
        credential: None,
        credential_state: None,
        tier: None,
        budget: None,
        store_lost: None,
    };
    match decide(snapshot, client, request, &mut explanation) {
        Ok(rule) => explanation.rule = rule,
        Err(refusal) => {
            explanation.decision = "deny";
            explanation.only_with = None;
            explanation.code = Some(refusal.code());
            explanation.status = Some(refusal.status().as_u16());
            explanation.rule = refusal.detail().unwrap_or_else(|| refusal.public_error().message);
            if let Refusal::MethodNotAllowed { allow, .. } = refusal {
                explanation.allow = Some(allow);
            }
        }
    }
    explanation
}

/// Fills in the facts about the caller that do not depend on the decision.
fn describe_caller<'a>(snapshot: &'a Snapshot, caller: &Caller<'a>, explanation: &mut Explanation<'a>) {
    explanation.consumer = caller.name();
    match caller.identity() {
        Identity::Consumer(consumer) => {
            explanation.plan = snapshot.plan_of(consumer.id).map(Plan::name);
            explanation.credential = snapshot.credentials.of(consumer.id).map(|credential| &*credential.name);
            explanation.tier = snapshot.rate_limits.tier(consumer.id).map(|tier| &*tier.name);
            explanation.budget = snapshot.budget.status_of(consumer.id, None).map(Into::into);
        }
        Identity::Passthrough(_) => {
            explanation.plan = snapshot.entitlements.passthrough.as_ref().map(|entitlement| entitlement.plan.name());
            explanation.tier = snapshot.rate_limits.passthrough.as_ref().map(|tier| &*tier.name);
        }
        Identity::Public(_) => {}
    }
}

fn decide<'a>(
    snapshot: &'a Snapshot,
    client: Client<'a>,
    request: ExplainRequest<'a>,
    explanation: &mut Explanation<'a>,
) -> Result<String, Refusal> {
    let ExplainRequest { method, target, .. } = request;
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let caller = client.identify(snapshot);
    if let Ok(caller) = &caller {
        describe_caller(snapshot, caller, explanation);
    }
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::unsupported_method(ALL_METHODS));
    }
    if *method == Method::OPTIONS {
        explanation.allow = Some(snapshot.catalog().allow(path, snapshot.unknown_endpoints)?);
        return Ok("the gateway itself answers OPTIONS for any caller".to_owned());
    }
    let caller = caller?;
    let consumer = match caller.identity() {
        Identity::Consumer(consumer) => Some(consumer.id),
        Identity::Public(_) | Identity::Passthrough(_) => None,
    };
    let is_public = matches!(caller.identity(), Identity::Public(_));
    let route = snapshot.catalog().match_route(method, path, snapshot.unknown_endpoints)?;
    explanation.endpoint = route.endpoint().map(ExplainedEndpoint::of);
    explanation.budget = consumer.and_then(|id| snapshot.budget.status_of(id, route.endpoint())).map(Into::into);
    let allowed_by = if is_public {
        "the operation is public: Cal.com requires no credential for it".to_owned()
    } else {
        allowed_by(&route, explanation.plan)
    };
    let grant = snapshot.entitlements.grant(caller, route)?;
    select_credential(snapshot, consumer, &grant, request.managed_user, explanation)?;
    snapshot.credentials.capture(&grant)?;
    Ok(grant.would_deny().map_or(allowed_by, |rule| format!("observe mode forwards it, although: {rule}")))
}

/// Selects the credential for the request. A request without a managed user may have to name one.
fn select_credential(
    snapshot: &Snapshot,
    consumer: Option<ConsumerId>,
    grant: &Grant<'_>,
    managed_user: Option<&str>,
    explanation: &mut Explanation<'_>,
) -> Result<(), Refusal> {
    let mut headers = HeaderMap::new();
    if let Some(user) = managed_user {
        // A value that is invalid in a header is not a valid id either, and neither is the question mark.
        headers.insert(MANAGED_USER, HeaderValue::from_str(user).unwrap_or(HeaderValue::from_static("?")));
    }
    let may_act_for_any = || consumer.is_some_and(|id| snapshot.credentials.may_act_for_any(id));
    let for_user = match snapshot.credentials.select(grant, &headers) {
        Ok(selected) => selected.is_for_managed_user(),
        Err(Refusal::CredentialUnsuitable { .. }) if managed_user.is_none() && may_act_for_any() => {
            explanation.only_with = Some("x-calgate-managed-user");
            true
        }
        Err(refusal) => return Err(refusal),
    };
    if for_user {
        explanation.budget = None;
    }
    Ok(())
}

fn allowed_by(route: &RouteMatch<'_>, plan: Option<&str>) -> String {
    let plan = plan.unwrap_or("(none)");
    match route.endpoint() {
        Some(endpoint) => format!("plan \"{plan}\" allows the tag \"{}\"", endpoint.tag),
        None => format!("catalog.unknown_endpoints forwards it, and plan \"{plan}\" allows all of its prefix"),
    }
}

impl std::fmt::Display for ExplainedBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scope = if self.apart { ", for this operation alone" } else { "" };
        write!(f, "{} requests per window{scope}", self.limit)
    }
}

impl std::fmt::Display for ExplainedEndpoint<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} (tag \"{}\", prefix {})", self.method, self.template, self.tag, self.prefix)
    }
}
