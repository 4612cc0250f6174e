//! What the gateway would decide, and by which rule, without a request (`calgate explain`, `POST /explain`).
//!
//! It asks the same stages as the request path, in the same order, and charges nothing.

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
use crate::ratelimit::Hold;
use crate::ratelimit::status::Standing;
use crate::refusal::Refusal;

/// The decision about one request.
#[derive(Debug, Serialize)]
pub struct Explanation<'a> {
    /// `allow` or `deny`.
    pub decision: &'static str,
    /// The header without which it would be denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_with: Option<&'static str>,
    /// The gateway's code, if it denies.
    pub code: Option<&'static str>,
    /// What it would answer, if it denies.
    pub status: Option<u16>,
    /// The methods that the path takes, where that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<String>,
    /// The endpoint the path means.
    pub endpoint: Option<ExplainedEndpoint<'a>>,
    /// The plan of the consumer's credential.
    pub plan: Option<&'a str>,
    /// The rule that decided.
    pub rule: String,
    /// Who asks.
    pub consumer: &'a str,
    /// The credential it would go upstream with.
    pub credential: Option<&'a str>,
    /// How that is, where it renews itself and the gateway is running: `fresh`, `needs-login`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_state: Option<&'static str>,
    /// The consumer's tier.
    pub tier: Option<&'a str>,
    /// The budget that the request would be put to, as it stands: the credential's, or that of an operation which Cal.com
    /// counts apart. Each managed user has one of its own, which is not told.
    pub budget: Option<ExplainedBudget>,
    /// True while the store of shared limits is not asked, in a running gateway that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_lost: Option<bool>,
}

/// The budget of a credential.
#[derive(Debug, Serialize)]
pub struct ExplainedBudget {
    /// Whether it is of this operation alone.
    apart: bool,
    limit: u32,
    /// How it stands, which only a running gateway knows.
    #[serde(flatten)]
    pub now: Option<BudgetSnapshot>,
}

/// How it stands now.
#[derive(Debug, Serialize)]
pub struct BudgetSnapshot {
    used: u32,
    in_flight: u32,
    waiting: usize,
    remaining: Option<u32>,
    foreign: u32,
    held_by: Option<&'static str>,
}

impl From<(Standing, bool)> for ExplainedBudget {
    fn from((standing, apart): (Standing, bool)) -> Self {
        let Standing { limit, used, in_flight, waiting, remaining, foreign, held_by } = standing;
        let held_by = held_by.map(Hold::name);
        Self { apart, limit, now: Some(BudgetSnapshot { used, in_flight, waiting, remaining, foreign, held_by }) }
    }
}

/// The endpoint a path means.
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

/// A request that is asked about.
#[derive(Debug, Clone, Copy)]
pub struct ExplainRequest<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its target. A query is left aside, as the decision leaves it.
    pub target: &'a str,
    /// The managed user it names, if any.
    pub managed_user: Option<&'a str>,
}

/// The client that would send a request.
#[derive(Debug, Clone, Copy)]
pub enum Client<'a> {
    /// A consumer, with a key of its own.
    Consumer(&'a Consumer),
    /// A client without a key.
    Anonymous,
    /// A client with a Cal.com credential of its own.
    Passthrough(PassthroughKind),
}

/// The kind of credential that a passthrough client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassthroughKind {
    /// An API key.
    ApiKey,
    /// An access token.
    Token,
    /// A platform client's id and secret.
    PlatformClient,
}

impl PassthroughKind {
    /// The kinds by name.
    pub const NAMES: [(&'static str, Self); 3] =
        [("api-key", Self::ApiKey), ("token", Self::Token), ("platform-client", Self::PlatformClient)];

    /// Header fields as such a client sends them. The values are made up: only Cal.com can tell whether one is valid.
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
    /// Returns the caller that the gateway would take this client for.
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

/// Decides what `client` would get for a request.
pub fn explain<'a>(snapshot: &'a Snapshot, client: Client<'a>, asked: ExplainRequest<'a>) -> Explanation<'a> {
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
    match decide(snapshot, client, asked, &mut explanation) {
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

/// Fills in what is known of the caller before anything is decided.
fn describe_caller<'a>(snapshot: &'a Snapshot, caller: &Caller<'a>, explanation: &mut Explanation<'a>) {
    explanation.consumer = caller.name();
    match caller.identity() {
        Identity::Consumer(consumer) => {
            explanation.plan = snapshot.plan_of(consumer.id).map(Plan::name);
            explanation.credential = snapshot.credentials.of(consumer.id).map(|credential| &*credential.name);
            explanation.tier = snapshot.rate_limits.tier(consumer.id).map(|tier| &*tier.name);
            explanation.budget = snapshot.budget.standing_of(consumer.id, None).map(Into::into);
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
    asked: ExplainRequest<'a>,
    explanation: &mut Explanation<'a>,
) -> Result<String, Refusal> {
    let ExplainRequest { method, target, .. } = asked;
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
        return Ok("OPTIONS is answered by the gateway itself, for any caller".to_owned());
    }
    let caller = caller?;
    let consumer = match caller.identity() {
        Identity::Consumer(consumer) => Some(consumer.id),
        Identity::Public(_) | Identity::Passthrough(_) => None,
    };
    let is_public = matches!(caller.identity(), Identity::Public(_));
    let matched = snapshot.catalog().match_route(method, path, snapshot.unknown_endpoints)?;
    explanation.endpoint = matched.endpoint().map(ExplainedEndpoint::of);
    explanation.budget = consumer.and_then(|id| snapshot.budget.standing_of(id, matched.endpoint())).map(Into::into);
    let allowed_by = if is_public {
        "the operation is public: Cal.com needs no credential for it".to_owned()
    } else {
        allowed_by(&matched, explanation.plan)
    };
    let grant = snapshot.entitlements.grant(caller, matched)?;
    suit(snapshot, consumer, &grant, asked.managed_user, explanation)?;
    snapshot.credentials.capture(&grant)?;
    Ok(grant.would_deny().map_or(allowed_by, |rule| format!("observed only: {rule}")))
}

/// As whom it could be sent. One that names no managed user may have to name one.
fn suit(
    snapshot: &Snapshot,
    consumer: Option<ConsumerId>,
    grant: &Grant<'_>,
    managed_user: Option<&str>,
    explanation: &mut Explanation<'_>,
) -> Result<(), Refusal> {
    let mut headers = HeaderMap::new();
    if let Some(user) = managed_user {
        // What can stand in no header is as little an id as what stands here for it.
        headers.insert(MANAGED_USER, HeaderValue::from_str(user).unwrap_or(HeaderValue::from_static("?")));
    }
    let may_act_for_any = || consumer.is_some_and(|id| snapshot.credentials.may_act_for_any(id));
    let for_user = match snapshot.credentials.suit(grant, &headers) {
        Ok(suited) => suited.is_for_managed_user(),
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

fn allowed_by(matched: &RouteMatch<'_>, plan: Option<&str>) -> String {
    let plan = plan.unwrap_or("(none)");
    match matched.endpoint() {
        Some(endpoint) => format!("plan \"{plan}\" allows the tag \"{}\"", endpoint.tag),
        None => format!("catalog.unknown_endpoints forwards it, and plan \"{plan}\" allows all of its prefix"),
    }
}

impl std::fmt::Display for ExplainedBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = if self.apart { ", of this operation alone" } else { "" };
        write!(f, "{} requests a window{of}", self.limit)
    }
}

impl std::fmt::Display for ExplainedEndpoint<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} (tag \"{}\", prefix {})", self.method, self.template, self.tag, self.prefix)
    }
}
