//! Third stage: does the plan, and the consumer's own restriction, include the operation?
//!
//! Third stage: [`Entitlements::grant`] turns a caller and what it asks for into a [`Grant`], or refuses by a named
//! [`Rule`]. Every decision about a catalog endpoint is made once, when the configuration is built; the request path
//! reads it from a table.

mod plan;
mod restriction;

use std::collections::HashMap;
use std::sync::Arc;

pub use plan::{Plan, TagRule};
pub use restriction::Restriction;

use crate::catalog::{Endpoint, RouteMatch};
use crate::identify::{Caller, ConsumerId, Identity};
use crate::refusal::{Refusal, Rule};

/// `[entitlements] mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EntitlementMode {
    /// Refuse what is not included.
    #[default]
    Enforce,
    /// Let it through; log and count what would have been refused.
    Observe,
}

/// What one consumer may do.
#[derive(Debug, Clone)]
pub struct Entitlement {
    /// The plan of its credential.
    pub plan: Arc<Plan>,
    /// Its own restriction, if any.
    pub restriction: Option<Arc<Restriction>>,
    /// The credential operations it is allowed by name, as endpoint indexes.
    pub credential_operations: Arc<[usize]>,
}

/// The entitlement of every consumer, and of callers that bring a credential of their own.
#[derive(Debug)]
pub struct Entitlements {
    /// `[entitlements] mode`.
    pub mode: EntitlementMode,
    /// Those there are: many consumers share one, so that it is in the processor's caches whoever asks.
    kinds: Vec<Entitlement>,
    /// Which of them, by [`ConsumerId`].
    consumers: Vec<u32>,
    /// Of passthrough callers, where they are enabled.
    pub passthrough: Option<Entitlement>,
}

/// Proof that a caller may do what it asks for.
#[derive(Debug)]
pub struct Grant<'a> {
    caller: Caller<'a>,
    route: RouteMatch<'a>,
    would_deny: Option<Rule>,
}

impl<'a> Grant<'a> {
    /// Who asks.
    pub fn caller(&self) -> &Caller<'a> {
        &self.caller
    }

    /// What for.
    pub fn route(&self) -> &RouteMatch<'a> {
        &self.route
    }

    /// The rule that would have refused, were the mode not `observe`.
    pub fn would_deny(&self) -> Option<&Rule> {
        self.would_deny.as_ref()
    }
}

impl Entitlements {
    /// `consumers` are in the order of [`ConsumerId`].
    pub fn new(mode: EntitlementMode, consumers: Vec<Entitlement>, passthrough: Option<Entitlement>) -> Self {
        let (mut kinds, mut known) = (Vec::new(), HashMap::new());
        let kind_of = |entitlement: Entitlement| {
            let Entitlement { plan, restriction, credential_operations } = &entitlement;
            let alike = (Arc::as_ptr(plan), restriction.as_ref().map(Arc::as_ptr), credential_operations.clone());
            let next = u32::try_from(known.len()).unwrap_or(u32::MAX); // No configuration has so many; they are refused.
            *known.entry(alike).or_insert_with(|| {
                kinds.push(entitlement);
                next
            })
        };
        let consumers = consumers.into_iter().map(kind_of).collect();
        Self { mode, kinds, consumers, passthrough }
    }

    /// Decides whether `caller` may have `route`.
    ///
    /// # Errors
    /// [`Refusal::CredentialOperation`], [`Refusal::NotEntitled`]; [`Refusal::Unauthenticated`] for a caller without a
    /// key that asks for more than public operations.
    pub fn grant<'a>(&self, caller: Caller<'a>, route: RouteMatch<'a>) -> Result<Grant<'a>, Refusal> {
        let would_deny = match (self.check(&caller, &route), self.mode) {
            (Ok(()), _) => None,
            (Err(Refusal::NotEntitled(rule)), EntitlementMode::Observe) => Some(rule),
            (Err(refusal), _) => return Err(refusal),
        };
        Ok(Grant { caller, route, would_deny })
    }

    fn check(&self, caller: &Caller<'_>, route: &RouteMatch<'_>) -> Result<(), Refusal> {
        let entitlement = match caller.identity() {
            // A caller without a key gets what Cal.com gives anyone.
            Identity::Public(_) if route.is_public() => return Ok(()),
            Identity::Public(_) => return Err(Refusal::Unauthenticated(caller.auth_failure())),
            Identity::Consumer(consumer) => self.of(consumer.id),
            Identity::Passthrough(_) => self.passthrough.as_ref(),
        };
        let entitlement = entitlement.ok_or_else(|| Refusal::Unauthenticated(caller.auth_failure()))?;
        let brings_its_own = matches!(caller.identity(), Identity::Passthrough(_));
        let closed = |e: &&&Endpoint| {
            let is_shown = e.credential_operation && !(brings_its_own && e.echoes_credential);
            is_shown && !entitlement.credential_operations.contains(&e.id.index())
        };
        if route.candidates().iter().any(|e| closed(&e)) {
            return Err(Refusal::CredentialOperation);
        }
        entitlement.decide(route).map_or(Ok(()), |rule| Err(Refusal::NotEntitled(rule)))
    }

    /// The entitlement of a consumer.
    pub fn of(&self, consumer: ConsumerId) -> Option<&Entitlement> {
        self.kinds.get(*self.consumers.get(consumer.index())? as usize)
    }
}

impl Entitlement {
    /// The rule that refuses, if one does.
    fn decide(&self, route: &RouteMatch<'_>) -> Option<Rule> {
        if route.endpoint().is_none() {
            let beside = route.other_methods().iter().find_map(|endpoint| self.plan.deny_rule(endpoint)).cloned();
            let refused = beside.or_else(|| self.plan.deny_rule_for_unknown(route.path()));
            return refused
                .or_else(|| self.restriction.as_ref().map(|restriction| restriction.deny_rule_for_unknown()));
        }
        let by_plan = route.candidates().iter().find_map(|e| self.plan.deny_rule(e));
        let restriction = self.restriction.as_deref();
        by_plan.or_else(|| route.candidates().iter().find_map(|e| restriction?.deny_rule(e))).cloned()
    }
}
