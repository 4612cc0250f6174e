//! A budget for which the limit store decides about each request.

use std::sync::Arc;
use std::time::Duration;

use crate::budget::credential_budget::uncommitted::Boarding;
use crate::budget::credential_budget::{Budget, take_along};
use crate::budget::membership::Membership;
use crate::limit::PendingCharge;
use crate::limit_store::Unavailable;
use crate::limit_store::circuit_breaker::BreakerState;
use crate::limit_store::{AcquireRequest, Acquired, HeartbeatReply, ReplayedRequest};
use crate::ratelimit::Hold;
use crate::ratelimit::authority::No;
use crate::ratelimit::fair_queue::Asker;
use crate::ratelimit::limiter::{Flight, Next};
use crate::ratelimit::parts::Part;
use crate::refusal::Refusal;
use crate::time::MonoTime;

impl Budget {
    /// Begins to be heard in the store, if it has one. Nothing goes out until that is done, or has failed.
    pub fn begin(self: &Arc<Self>) {
        let Some(member) = self.member.as_ref().filter(|member| !member.is_kept()) else { return };
        self.wait_for_store(1, member.within());
        if !member.keep(self) {
            self.go_alone(member);
        }
    }

    /// Puts a request to the store that may go as far as is known here. `None`: it has to ask again, here.
    pub(super) async fn confirm(
        self: &Arc<Self>,
        member: &Arc<Membership>,
        mut boarding: Boarding<'_>,
        asker: &Asker,
        pending: &mut Option<&PendingCharge<'_>>,
    ) -> Result<Option<Flight>, Refusal> {
        let (by_store, asking) = {
            let mut state = self.lock();
            boarding.depart(member, &mut state.flying);
            let (machine, waiting) = (&state.machine, state.machine.has_turns());
            let (request, express, light) = (boarding.request(), boarding.is_express(), machine.light(Some(asker)));
            let asking = AcquireRequest { request, express, waiting, anyway: false, light, epoch: machine.epoch() };
            (machine.is_by_store(), asking)
        };
        if !by_store {
            // The store has been lost since, and nobody has asked whether this gateway's own rules let it out.
            if boarding.is_by_store() {
                return Ok(None);
            }
            take_along(pending.take()).await?;
            return Ok(boarding.go());
        }
        let beside = pending.filter(|pending| member.is_beside(pending));
        if beside.is_none() {
            take_along(pending.take()).await?;
        }
        match self.acquire(member, asking, beside).await {
            Ok(Acquired::Go { ahead, .. }) => {
                learn(pending, ahead);
                Ok(boarding.go())
            }
            Ok(Acquired::Held { ahead, by, wait }) => {
                learn(pending, ahead);
                self.held_by_store(by, wait);
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
                // Whether the store has taken the token is not known; it has had the time to say so.
                beside.and_then(|_| pending.take()).map_or(Ok(()), PendingCharge::charge_locally)?;
                Ok(None)
            }
        }
    }

    /// Tells the store of a request that goes whatever it says.
    pub(super) async fn confirm_anyway(
        self: &Arc<Self>,
        member: &Arc<Membership>,
        mut boarding: Boarding<'_>,
        by: Option<Hold>,
        pending: Option<&PendingCharge<'_>>,
    ) -> Result<(Flight, Option<Hold>), Refusal> {
        let by_store = {
            let mut state = self.lock();
            boarding.depart(member, &mut state.flying);
            state.machine.is_by_store()
        };
        take_along(pending).await?;
        let request = boarding.request();
        let asking = AcquireRequest {
            request,
            express: true,
            waiting: false,
            anyway: true,
            light: 0,
            epoch: self.lock().machine.epoch(),
        };
        let mut held = by;
        if by_store {
            match self.acquire(member, asking, None).await {
                Ok(Acquired::Go { by, .. }) => held = by,
                Ok(_) => self.join_again(member),
                Err(Unavailable) => self.ask_again(member),
            }
        }
        Ok((boarding.go().ok_or(Refusal::Internal)?, held))
    }

    /// Lets go those that wait, one after the other, while the store says yes.
    pub(super) async fn let_go_by_store(&self, member: &Arc<Membership>) {
        loop {
            let asking = {
                let mut state = self.lock();
                let now = self.clock.now();
                if !state.machine.is_by_store() {
                    return;
                }
                let Some(express) = state.machine.wants(now) else { return };
                let (waiting, light) = (state.machine.has_turns(), state.machine.light(None));
                let (request, epoch) = (member.next_request(), state.machine.epoch());
                AcquireRequest { request, express, waiting, anyway: false, light, epoch }
            };
            let acquired = self.acquire(member, asking, None).await;
            let mut state = self.lock();
            let now = self.clock.now();
            match acquired {
                Ok(Acquired::Go { .. }) => match state.machine.next_allowed(now) {
                    Next::Go(ticket, mut flight) => {
                        member.depart_as(asking.request, &mut state.flying, &mut flight, now);
                        self.hand_over(&mut state, ticket, flight);
                    }
                    Next::At(_) | Next::Idle => member.take_back(state.settings, asking.request),
                },
                Ok(Acquired::Held { by, wait, .. }) => {
                    drop(state);
                    self.held_by_store(by, wait);
                }
                Ok(Acquired::Empty { .. } | Acquired::UnknownMember) => {
                    drop(state);
                    return self.join_again(member);
                }
                Err(Unavailable) => {
                    member.take_back(state.settings, asking.request);
                    drop(state);
                    return self.ask_again(member);
                }
            }
        }
    }

    /// Is heard in the store, or joins it, or goes on without, as the store stands. Answers whether to go on with that.
    pub(in crate::budget) async fn beat(&self, store: BreakerState) -> bool {
        let Some(member) = &self.member else { return false };
        // A gateway leaves only while the store decides: with the goodbye, the store drops the part that it keeps for this gateway.
        if store == BreakerState::Closed && member.is_in() && !member.lasts() && self.is_unused() {
            self.lock().machine.give_up_part();
            self.go_alone(member);
            member.end().await;
            return false;
        }
        match store {
            BreakerState::Open { .. } => self.go_alone(member),
            // At the start it has not been asked yet, and is in a moment. After a loss that takes `recover_within`.
            BreakerState::Recovering { .. } if !member.was_shared() => self.wait_for_store(1, member.within()),
            BreakerState::Recovering { .. } => {
                self.go_alone(member);
                let (settings, missed) = self.missed();
                let _ = member.join(settings, false, &missed).await;
            }
            BreakerState::Closed => self.beat_closed(member).await,
        }
        true
    }

    /// Says goodbye to the store.
    pub async fn end(&self) {
        if let Some(member) = &self.member {
            member.end().await;
        }
    }

    async fn beat_closed(&self, member: &Arc<Membership>) {
        if member.is_in() {
            let (asked, epoch) = (self.clock.now(), self.lock().machine.epoch());
            match member.heartbeat(self.settings(), epoch).await {
                Ok(heard) if heard.is_member => return self.hear(member, &heard, asked),
                Ok(_) => {}
                // The next request will tell; it is the breaker that gives the store up.
                Err(Unavailable) => return,
            }
        }
        // Nothing goes out while the store is told of everything, so that nothing is left out.
        self.wait_for_store(member.gateways(), member.within());
        self.lock().machine.give_up_part();
        let (settings, missed) = self.missed();
        match member.join(settings, true, &missed).await {
            Ok(()) => self.wait_for_store(member.gateways(), Duration::ZERO),
            Err(Unavailable) => self.ask_again(member),
        }
    }

    /// May a request go out? What the store tells of parts beside is noted.
    async fn acquire(
        &self,
        member: &Arc<Membership>,
        asking: AcquireRequest,
        pending: Option<&PendingCharge<'_>>,
    ) -> Result<Acquired, Unavailable> {
        let asked = self.clock.now();
        let (acquired, part) = member.acquire(self.settings(), asking, pending).await?;
        self.note_part(member, part, asked);
        Ok(acquired)
    }

    fn note_part(&self, member: &Membership, part: Part, asked: MonoTime) {
        if self.lock().machine.told_part(part, asked) {
            member.hurry();
        }
    }

    /// The store has not answered in time. That says nothing of it, and others go by it: until it is given up, nothing goes out.
    fn ask_again(&self, member: &Membership) {
        if member.is_lost() {
            return self.go_alone(member);
        }
        self.hold(member.within());
    }

    /// The store does not know this gateway, which has to join first.
    fn join_again(&self, member: &Membership) {
        member.leave();
        member.hurry();
        self.ask_again(member);
    }

    fn hold(&self, wait: Duration) {
        let now = self.clock.now();
        self.lock().machine.held_by_store(No::for_now(wait, now));
    }

    pub(in crate::budget) fn membership(&self) -> Option<Arc<Membership>> {
        self.member.clone()
    }

    /// The store decides, for so many gateways, and says no for a while yet.
    fn wait_for_store(&self, gateways: u32, wait: Duration) {
        let now = self.clock.now();
        let mut state = self.lock();
        state.machine.go_by_store(gateways);
        state.machine.held_by_store(No::for_now(wait, now));
        self.change(&mut state);
    }

    fn hear(&self, member: &Membership, heard: &HeartbeatReply, asked: MonoTime) {
        let now = self.clock.now();
        self.note_part(member, heard.part, asked);
        let windows: Vec<_> = heard.windows.iter().map(|window| (window.seen, window.ends(asked, now))).collect();
        let mut state = self.lock();
        state.machine.go_by_store(heard.members);
        state.machine.told_by_store(&windows, heard.foreign, now);
    }

    fn held_by_store(&self, by: Hold, wait: Option<Duration>) {
        let now = self.clock.now();
        self.lock().machine.denied_by_store(by, wait, now);
    }

    fn go_alone(&self, member: &Membership) {
        member.leave();
        let (mut state, now) = (self.lock(), self.clock.now());
        let replicas = member.replicas(state.settings);
        state.machine.go_alone(replicas, member.deadline(), now);
        self.change(&mut state);
    }

    /// All requests that the store has to know of.
    fn missed(&self) -> (crate::budget::credential_budget::Settings, Vec<ReplayedRequest>) {
        let now = self.clock.now();
        let state = self.lock();
        let flying = state.flying.iter().map(|(&request, deadline)| (request, true, deadline.since(now)));
        let over = state.machine.releases().zip(0..).map(|(release, n)| (n, release.since(now)));
        // Those that are over need a name that no request has.
        let over = over.map(|(n, left)| (u64::MAX - n, false, left));
        let missed = flying.chain(over).map(|(request, in_flight, left)| ReplayedRequest { request, in_flight, left });
        (state.settings, missed.collect())
    }
}

/// Confirms the pending charge. The bucket is full after `ahead`.
fn learn(pending: &mut Option<&PendingCharge<'_>>, ahead: Option<Duration>) {
    if let (Some(pending), Some(ahead)) = (pending.take(), ahead) {
        pending.confirm(ahead);
    }
}
