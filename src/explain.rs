//! What the gateway would decide, and by which rule, without a request (`calgate explain`, `POST /explain`).
//!
//! It asks the same stages as the request path, in the same order, and charges nothing.

use http::{HeaderMap, HeaderValue, Method};
use serde::Serialize;

use crate::app::App;
use crate::budget::{Hold, Standing};
use crate::catalog::{Endpoint, Matched};
use crate::credential::managed::MANAGED_USER;
use crate::entitle::Grant;
use crate::identify::{Caller, Consumer};
use crate::refusal::Refusal;
use crate::respond;

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
    pub now: Option<BudgetNow>,
}

/// How it stands now.
#[derive(Debug, Serialize)]
pub struct BudgetNow {
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
        Self { apart, limit, now: Some(BudgetNow { used, in_flight, waiting, remaining, foreign, held_by }) }
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
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its target. A query is left aside, as the decision leaves it.
    pub target: &'a str,
    /// The managed user it names, if any.
    pub managed_user: Option<&'a str>,
}

/// Decides what `consumer` would get for a request.
pub fn explain<'a>(app: &'a App, consumer: &'a Consumer, asked: Asked<'a>) -> Explanation<'a> {
    let mut explanation = Explanation {
        decision: "allow",
        only_with: None,
        code: None,
        status: None,
        endpoint: None,
        plan: app.plan_of(consumer.id).map(crate::entitle::Plan::name),
        rule: String::new(),
        consumer: &consumer.name,
        credential: app.credentials.of(consumer.id).map(|credential| &*credential.name),
        credential_state: None,
        tier: app.buckets.tier(consumer.id).map(|tier| &*tier.name),
        budget: app.budget.standing_of(consumer.id, None).map(Into::into),
        store_lost: None,
    };
    let decided = decide(app, consumer, asked, &mut explanation);
    match decided {
        Ok(rule) => explanation.rule = rule,
        Err(refusal) => {
            explanation.decision = "deny";
            explanation.only_with = None;
            explanation.code = Some(refusal.code());
            explanation.status = Some(refusal.status().as_u16());
            explanation.rule = refusal.detail().unwrap_or_else(|| refusal.outward().message);
        }
    }
    explanation
}

fn decide<'a>(
    app: &'a App,
    consumer: &'a Consumer,
    asked: Asked<'a>,
    explanation: &mut Explanation<'a>,
) -> Result<String, Refusal> {
    let Asked { method, target, .. } = asked;
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        return Err(respond::never_taken());
    }
    if *method == Method::OPTIONS {
        let here = "OPTIONS is answered by the gateway itself, for any caller".to_owned();
        return app.catalog().allow(path, app.unknown_endpoints).map(|_| here);
    }
    let matched = app.catalog().find(method, path, app.unknown_endpoints)?;
    explanation.endpoint = matched.endpoint().map(ExplainedEndpoint::of);
    explanation.budget = app.budget.standing_of(consumer.id, matched.endpoint()).map(Into::into);
    let allowed_by = allowed_by(&matched, explanation.plan);
    let grant = app.entitlements.grant(Caller::named(consumer), matched)?;
    suit(app, consumer, &grant, asked.managed_user, explanation)?;
    app.credentials.capture(&grant)?;
    Ok(grant.observed().map_or(allowed_by, |rule| format!("observed only: {rule}")))
}

/// As whom it could be sent. One that names no managed user may have to name one.
fn suit(
    app: &App,
    consumer: &Consumer,
    grant: &Grant<'_>,
    managed_user: Option<&str>,
    explanation: &mut Explanation<'_>,
) -> Result<(), Refusal> {
    let mut headers = HeaderMap::new();
    if let Some(user) = managed_user {
        // What can stand in no header is as little an id as what stands here for it.
        headers.insert(MANAGED_USER, HeaderValue::from_str(user).unwrap_or(HeaderValue::from_static("?")));
    }
    let for_user = match app.credentials.suit(grant, &headers) {
        Ok(suited) => suited.is_for_managed_user(),
        Err(Refusal::CredentialUnsuitable { .. })
            if managed_user.is_none() && app.credentials.may_act_for_any(consumer.id) =>
        {
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

fn allowed_by(matched: &Matched<'_>, plan: Option<&str>) -> String {
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
