//! Shared mode of a budget: the limit store decides about each request.

use std::sync::Arc;
use std::time::Duration;

use crate::budget::credential_budget::uncommitted::UncommittedSlot;
use crate::budget::credential_budget::{CredentialBudget, charge_now};
use crate::budget::membership::Membership;
use crate::limit::PendingCharge;
use crate::limit_store::Unavailable;
use crate::limit_store::circuit_breaker::BreakerState;
use crate::limit_store::{AcquireRequest, Acquired, HeartbeatReply, ReplayedRequest};
use crate::ratelimit::ThrottleReason;
use crate::ratelimit::authority::CachedDenial;
use crate::ratelimit::fair_queue::Flow;
use crate::ratelimit::limiter::{InFlight, Wakeup};
use crate::ratelimit::parts::Part;
use crate::refusal::Refusal;
use crate::time::MonoTime;

impl CredentialBudget {
    /// Starts the membership in the store, if there is one. No request is sent until it has joined, or has failed to.
    pub fn start(self: &Arc<Self>) {
        let Some(member) = self.member.as_ref().filter(|member| !member.has_heartbeat()) else { return };
        self.defer_to_store(1, member.within());
        if !member.spawn_heartbeat(self) {
            self.leave_shared_mode(member);
        }
    }

    /// Asks the store about a request that this gateway admitted. `None` means that the request has to be admitted again here.
    pub(super) async fn confirm_with_store(
        self: &Arc<Self>,
        member: &Arc<Membership>,
        mut uncommitted: UncommittedSlot<'_>,
        flow: &Flow,
        pending: &mut Option<&PendingCharge<'_>>,
    ) -> Result<Option<InFlight>, Refusal> {
        let (is_shared, asking) = {
            let mut state = self.lock();
            uncommitted.register(member, &mut state.in_flight);
            let (limiter, waiting) = (&state.limiter, state.limiter.has_waiters());
            let (request, express, light) =
                (uncommitted.request(), uncommitted.is_express(), limiter.light_load(Some(flow)));
            let asking = AcquireRequest { request, express, waiting, anyway: false, light, epoch: limiter.epoch() };
            (limiter.is_shared(), asking)
        };
        if !is_shared {
            // The store was lost in the meantime, and this gateway's own rules have not admitted the request.
            if uncommitted.is_by_store() {
                return Ok(None);
            }
            charge_now(pending.take()).await?;
            return Ok(uncommitted.commit());
        }
        let beside = pending.filter(|pending| member.is_colocated(pending));
        if beside.is_none() {
            charge_now(pending.take()).await?;
        }
        match self.ask_store(member, asking, beside).await {
            Ok(Acquired::Go { ahead, .. }) => {
                merge_charge(pending, ahead);
                Ok(uncommitted.commit())
            }
            Ok(Acquired::Held { ahead, by, wait }) => {
                merge_charge(pending, ahead);
                self.apply_denial(by, wait);
                Ok(None)
            }
            Ok(Acquired::Empty { ahead }) => match pending.take() {
                Some(pending) => Err(pending.reject(ahead)),
                None => Ok(None),
            },
            Ok(Acquired::UnknownMember) => {
                self.join_again(member);
                Ok(None)
            }
            Err(Unavailable) => {
                self.ask_again(member);
                // It is unknown whether the store has taken the token. The reply had enough time to say so.
                beside.and_then(|_| pending.take()).map_or(Ok(()), PendingCharge::charge_locally)?;
                Ok(None)
            }
        }
    }

    /// Reports a request to the store that is sent whatever the store decides.
    pub(super) async fn confirm_unlimited(
        self: &Arc<Self>,
        member: &Arc<Membership>,
        mut uncommitted: UncommittedSlot<'_>,
        by: Option<ThrottleReason>,
        pending: Option<&PendingCharge<'_>>,
    ) -> Result<(InFlight, Option<ThrottleReason>), Refusal> {
        let is_shared = {
            let mut state = self.lock();
            uncommitted.register(member, &mut state.in_flight);
            state.limiter.is_shared()
        };
        charge_now(pending).await?;
        let request = uncommitted.request();
        let asking = AcquireRequest {
            request,
            express: true,
            waiting: false,
            anyway: true,
            light: 0,
            epoch: self.lock().limiter.epoch(),
        };
        let mut held = by;
        if is_shared {
            match self.ask_store(member, asking, None).await {
                Ok(Acquired::Go { by, .. }) => held = by,
                Ok(_) => self.join_again(member),
                Err(Unavailable) => self.ask_again(member),
            }
        }
        Ok((uncommitted.commit().ok_or(Refusal::Internal)?, held))
    }

    /// Sends waiting requests, one after the other, while the store admits them.
    pub(super) async fn dispatch_shared(&self, member: &Arc<Membership>) {
        loop {
            let asking = {
                let mut state = self.lock();
                let now = self.clock.now();
                if !state.limiter.is_shared() {
                    return;
                }
                let Some(express) = state.limiter.needs_store_decision(now) else { return };
                let (waiting, light) = (state.limiter.has_waiters(), state.limiter.light_load(None));
                let (request, epoch) = (member.next_request(), state.limiter.epoch());
                AcquireRequest { request, express, waiting, anyway: false, light, epoch }
            };
            let acquired = self.ask_store(member, asking, None).await;
            let mut state = self.lock();
            let now = self.clock.now();
            match acquired {
                Ok(Acquired::Go { .. }) => match state.limiter.next_admitted(now) {
                    Wakeup::Admit(ticket, mut flight) => {
                        member.register_as(asking.request, &mut state.in_flight, &mut flight, now);
                        self.notify_waiter(&mut state, ticket, flight);
                    }
                    Wakeup::At(_) | Wakeup::Idle => member.withdraw(state.settings, asking.request),
                },
                Ok(Acquired::Held { by, wait, .. }) => {
                    drop(state);
                    self.apply_denial(by, wait);
                }
                Ok(Acquired::Empty { .. } | Acquired::UnknownMember) => {
                    drop(state);
                    return self.join_again(member);
                }
                Err(Unavailable) => {
                    member.withdraw(state.settings, asking.request);
                    drop(state);
                    return self.ask_again(member);
                }
            }
        }
    }

    /// Sends a heartbeat, joins the store or leaves shared mode, as the circuit breaker's state requires. Returns whether
    /// heartbeats continue.
    pub(in crate::budget) async fn heartbeat(&self, store: BreakerState) -> bool {
        let Some(member) = &self.member else { return false };
        // The gateway leaves only in shared mode, because the goodbye makes the store drop the part that it keeps for this
        // gateway.
        if store == BreakerState::Closed && member.is_joined() && !member.is_persistent() && self.is_unused() {
            self.lock().limiter.give_up_part();
            self.leave_shared_mode(member);
            member.leave_store().await;
            return false;
        }
        match store {
            BreakerState::Open { .. } => self.leave_shared_mode(member),
            // At the start, the store becomes available in a moment. After a loss, that takes `recover_within`.
            BreakerState::Recovering { .. } if !member.was_shared() => self.defer_to_store(1, member.within()),
            BreakerState::Recovering { .. } => {
                self.leave_shared_mode(member);
                let (settings, missed) = self.replay_list();
                let _ = member.join(settings, false, &missed).await;
            }
            BreakerState::Closed => self.heartbeat_closed(member).await,
        }
        true
    }

    /// Says goodbye to the store.
    pub async fn stop(&self) {
        if let Some(member) = &self.member {
            member.leave_store().await;
        }
    }

    async fn heartbeat_closed(&self, member: &Arc<Membership>) {
        if member.is_joined() {
            let (asked, epoch) = (self.clock.now(), self.lock().limiter.epoch());
            match member.heartbeat(self.settings(), epoch).await {
                Ok(heard) if heard.is_member => return self.apply_heartbeat(member, &heard, asked),
                Ok(_) => {}
                // The next request finds out. Only the circuit breaker gives the store up.
                Err(Unavailable) => return,
            }
        }
        // No request is sent while the gateway reports, so that the report is complete.
        self.defer_to_store(member.gateways(), member.within());
        self.lock().limiter.give_up_part();
        let (settings, missed) = self.replay_list();
        match member.join(settings, true, &missed).await {
            Ok(()) => self.defer_to_store(member.gateways(), Duration::ZERO),
            Err(Unavailable) => self.ask_again(member),
        }
    }

    /// Asks the store whether a request may be sent, and records the part in its reply.
    async fn ask_store(
        &self,
        member: &Arc<Membership>,
        asking: AcquireRequest,
        pending: Option<&PendingCharge<'_>>,
    ) -> Result<Acquired, Unavailable> {
        let asked = self.clock.now();
        let (acquired, part) = member.acquire(self.settings(), asking, pending).await?;
        self.update_part(member, part, asked);
        Ok(acquired)
    }

    fn update_part(&self, member: &Membership, part: Part, asked: MonoTime) {
        if self.lock().limiter.update_part(part, asked) {
            member.wake_heartbeat();
        }
    }

    /// Pauses after a late reply. It says nothing about the store, which other gateways still follow. So no request is sent until
    /// the circuit breaker gives the store up.
    fn ask_again(&self, member: &Membership) {
        if member.is_lost() {
            return self.leave_shared_mode(member);
        }
        self.pause(member.within());
    }

    /// Joins the store again, because it does not know this gateway.
    fn join_again(&self, member: &Membership) {
        member.mark_left();
        member.wake_heartbeat();
        self.ask_again(member);
    }

    fn pause(&self, wait: Duration) {
        let now = self.clock.now();
        self.lock().limiter.apply_denial(CachedDenial::temporary(wait, now));
    }

    pub(in crate::budget) fn membership(&self) -> Option<Arc<Membership>> {
        self.member.clone()
    }

    /// Enters shared mode for `gateways` gateways, with a denial for `wait`.
    fn defer_to_store(&self, gateways: u32, wait: Duration) {
        let now = self.clock.now();
        let mut state = self.lock();
        state.limiter.enter_shared_mode(gateways);
        state.limiter.apply_denial(CachedDenial::temporary(wait, now));
        self.change(&mut state);
    }

    fn apply_heartbeat(&self, member: &Membership, heard: &HeartbeatReply, asked: MonoTime) {
        let now = self.clock.now();
        self.update_part(member, heard.part, asked);
        let windows: Vec<_> = heard.windows.iter().map(|window| (window.seen, window.ends(asked, now))).collect();
        let mut state = self.lock();
        state.limiter.enter_shared_mode(heard.members);
        state.limiter.merge_store_state(&windows, heard.foreign, now);
    }

    fn apply_denial(&self, by: ThrottleReason, wait: Option<Duration>) {
        let now = self.clock.now();
        self.lock().limiter.record_denial(by, wait, now);
    }

    fn leave_shared_mode(&self, member: &Membership) {
        member.mark_left();
        let (mut state, now) = (self.lock(), self.clock.now());
        let replicas = member.replicas(state.settings);
        state.limiter.leave_shared_mode(replicas, member.deadline(), now);
        self.change(&mut state);
    }

    /// Returns all requests that the store has to know.
    fn replay_list(&self) -> (crate::budget::credential_budget::Settings, Vec<ReplayedRequest>) {
        let now = self.clock.now();
        let state = self.lock();
        let in_flight = state.in_flight.iter().map(|(&request, deadline)| (request, true, deadline.since(now)));
        let over = state.limiter.expiries().zip(0..).map(|(release, n)| (n, release.since(now)));
        // Completed requests need identifiers that no request in flight has.
        let over = over.map(|(n, left)| (u64::MAX - n, false, left));
        let missed =
            in_flight.chain(over).map(|(request, in_flight, left)| ReplayedRequest { request, in_flight, left });
        (state.settings, missed.collect())
    }
}

/// Confirms the pending charge. The bucket is full after `ahead`.
fn merge_charge(pending: &mut Option<&PendingCharge<'_>>, ahead: Option<Duration>) {
    if let (Some(pending), Some(ahead)) = (pending.take(), ahead) {
        pending.confirm(ahead);
    }
}
