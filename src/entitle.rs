//! Entitle stage: checks that the plan and the restriction of a consumer include the operation.
//!
//! [`Entitlements::grant`] turns a caller and a matched route into a [`Grant`], or refuses the request by a named [`Rule`]. The
//! decisions about all endpoints of the catalog are made when the configuration is built. A request only reads them from a table.

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
    /// Refuse operations that the plan does not include.
    #[default]
    Enforce,
    /// Forward them, but log and count each as a request that [`Self::Enforce`] would refuse.
    Observe,
}

/// Permissions of a consumer.
#[derive(Debug, Clone)]
pub struct Entitlement {
    /// Plan of its credential.
    pub plan: Arc<Plan>,
    /// Restriction beyond the plan, if there is one.
    pub restriction: Option<Arc<Restriction>>,
    /// Indexes of the credential operations that the configuration allows by name.
    pub credential_operations: Arc<[usize]>,
}

/// Entitlements of all consumers and of passthrough callers.
#[derive(Debug)]
pub struct Entitlements {
    /// `[entitlements] mode`.
    pub mode: EntitlementMode,
    /// Different entitlements. Many consumers share one, which therefore stays in the caches of the processor.
    distinct: Vec<Entitlement>,
    /// Index into `distinct` by [`ConsumerId`].
    consumers: Vec<u32>,
    /// Entitlement of passthrough callers, if they are enabled.
    pub passthrough: Option<Entitlement>,
}

/// Proof that a caller is entitled to the operation of its request.
#[derive(Debug)]
pub struct Grant<'a> {
    caller: Caller<'a>,
    route: RouteMatch<'a>,
    would_deny: Option<Rule>,
}

impl<'a> Grant<'a> {
    /// Returns the caller.
    pub fn caller(&self) -> &Caller<'a> {
        &self.caller
    }

    /// Returns the matched route.
    pub fn route(&self) -> &RouteMatch<'a> {
        &self.route
    }

    /// Returns the rule by which [`EntitlementMode::Enforce`] would refuse the request.
    pub fn would_deny(&self) -> Option<&Rule> {
        self.would_deny.as_ref()
    }
}

impl Entitlements {
    /// Creates the table. `consumers` are in the order of [`ConsumerId`].
    pub fn new(mode: EntitlementMode, consumers: Vec<Entitlement>, passthrough: Option<Entitlement>) -> Self {
        let (mut distinct, mut known) = (Vec::new(), HashMap::new());
        let index_of = |entitlement: Entitlement| {
            let Entitlement { plan, restriction, credential_operations } = &entitlement;
            let key = (Arc::as_ptr(plan), restriction.as_ref().map(Arc::as_ptr), credential_operations.clone());
            // No configuration has more than `u32::MAX` consumers. Requests of further ones would be refused.
            let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
            *known.entry(key).or_insert_with(|| {
                distinct.push(entitlement);
                next
            })
        };
        let consumers = consumers.into_iter().map(index_of).collect();
        Self { mode, distinct, consumers, passthrough }
    }

    /// Decides whether `caller` is entitled to `route`.
    ///
    /// # Errors
    /// [`Refusal::CredentialOperation`] or [`Refusal::NotEntitled`]. [`Refusal::Unauthenticated`] for a public caller that
    /// requests an operation which is not public.
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
            // A public caller has access to the operations that need no credential at Cal.com.
            Identity::Public(_) if route.is_public() => return Ok(()),
            Identity::Public(_) => return Err(Refusal::Unauthenticated(caller.auth_failure())),
            Identity::Consumer(consumer) => self.of(consumer.id),
            Identity::Passthrough(_) => self.passthrough.as_ref(),
        };
        let entitlement = entitlement.ok_or_else(|| Refusal::Unauthenticated(caller.auth_failure()))?;
        let is_passthrough = matches!(caller.identity(), Identity::Passthrough(_));
        let is_forbidden = |e: &Endpoint| {
            let is_exempt = is_passthrough && e.echoes_credential;
            e.credential_operation && !is_exempt && !entitlement.credential_operations.contains(&e.id.index())
        };
        if route.candidates().iter().any(|e| is_forbidden(e)) {
            return Err(Refusal::CredentialOperation);
        }
        entitlement.deny_rule(route).map_or(Ok(()), |rule| Err(Refusal::NotEntitled(rule)))
    }

    /// Returns the entitlement of a consumer.
    pub fn of(&self, consumer: ConsumerId) -> Option<&Entitlement> {
        self.distinct.get(*self.consumers.get(consumer.index())? as usize)
    }
}

impl Entitlement {
    /// Returns the rule that denies the route, if there is one.
    fn deny_rule(&self, route: &RouteMatch<'_>) -> Option<Rule> {
        if route.endpoint().is_none() {
            let by_other_method =
                route.other_methods().iter().find_map(|endpoint| self.plan.deny_rule(endpoint)).cloned();
            let by_plan = by_other_method.or_else(|| self.plan.deny_rule_for_unknown(route.path()));
            return by_plan
                .or_else(|| self.restriction.as_ref().map(|restriction| restriction.deny_rule_for_unknown()));
        }
        let by_plan = route.candidates().iter().find_map(|e| self.plan.deny_rule(e));
        let restriction = self.restriction.as_deref();
        by_plan.or_else(|| route.candidates().iter().find_map(|e| restriction?.deny_rule(e))).cloned()
    }
}
