//! Membership of one budget in the limit store: asks it about each request, reports the outcome, and sends heartbeats.
//!
//! While the store does not answer, Cal.com's own count is all that gateways have in common. The budget then counts as one of the
//! gateways known last ([`Membership::replicas`]). Each heartbeat returns the rest of Cal.com's windows, so that this starts from
//! current counts. When the store answers again, the budget reports all requests that are in flight or still count.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::budget::credential_budget::CredentialBudget;
use crate::limit::PendingCharge;
use crate::limit_store::circuit_breaker::BreakerState;
use crate::limit_store::{
    AcquireRequest, Acquired, Charge, HeartbeatReply, Limit, Member, ReplayedRequest, RequestOutcome,
};
use crate::limit_store::{LimitStoreClient, Unavailable};
use crate::ratelimit::Settings;
use crate::ratelimit::limiter::InFlight;
use crate::ratelimit::parts::Part;
use crate::ratelimit::usage_headers::{LimitReadings, UpstreamOutcome};
use crate::time::MonoTime;

/// Time between two heartbeats.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);

/// Membership of a budget.
#[derive(Debug)]
pub(super) struct Membership {
    store: Arc<LimitStoreClient>,
    /// Hash tag of its keys: the credential.
    tag: Arc<str>,
    keys: String,
    /// Time after which an admitted request has a response or never gets one.
    deadline: Duration,
    /// Whether the budget stays in the store while it is unused.
    is_persistent: bool,
    /// Number of gateways on the credential, as last reported.
    gateways: AtomicU32,
    /// Identifier of the next request. 0 means that a request has none.
    requests: AtomicU64,
    joins: AtomicU64,
    is_joined: AtomicBool,
    has_heartbeat: AtomicBool,
    /// Wakes the heartbeat task.
    wake: Notify,
}

impl Membership {
    /// Creates a membership for the limit `name` of a credential.
    pub(super) fn new(
        store: Arc<LimitStoreClient>,
        tag: Arc<str>,
        name: &str,
        deadline: Duration,
        is_persistent: bool,
    ) -> Self {
        Self {
            store,
            keys: format!("calgate:{{{tag}}}:{name}"),
            tag,
            deadline,
            is_persistent,
            gateways: AtomicU32::new(1),
            requests: AtomicU64::new(1),
            joins: AtomicU64::new(0),
            is_joined: AtomicBool::new(false),
            has_heartbeat: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// Returns the time after which an admitted request has a response or never gets one.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Returns whether limits have been shared since the start.
    pub(super) fn was_shared(&self) -> bool {
        self.store.was_shared()
    }

    /// Returns the timeout of a call to the store.
    pub(super) fn within(&self) -> Duration {
        self.store.timeout()
    }

    /// Returns whether the store is given up.
    pub(super) fn is_lost(&self) -> bool {
        !self.store.is_available()
    }

    /// Sends a heartbeat at once.
    pub(super) fn wake_heartbeat(&self) {
        self.wake.notify_one();
    }

    /// Creates a membership for another limit of the credential.
    pub(super) fn for_sub_limit(&self, name: &str) -> Self {
        Self::new(self.store.clone(), self.tag.clone(), name, self.deadline, false)
    }

    /// Returns a new identifier of a request in the store.
    pub(super) fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns the hash tag of its keys.
    pub(super) fn tag(&self) -> Arc<str> {
        self.tag.clone()
    }

    /// Returns whether the `pending` charge can be made in one call with this budget.
    pub(super) fn is_colocated(&self, pending: &PendingCharge<'_>) -> bool {
        pending.tag() == &*self.tag
    }

    /// Returns whether the budget stays in the store while it is unused.
    pub(super) fn is_persistent(&self) -> bool {
        self.is_persistent
    }

    /// Registers an admitted request under a new identifier.
    pub(super) fn register(&self, in_flight: &mut HashMap<u64, MonoTime>, flight: &mut InFlight, now: MonoTime) {
        self.register_as(self.next_request(), in_flight, flight, now);
    }

    /// Registers an admitted request that the store already knows.
    pub(super) fn register_as(
        &self,
        request: u64,
        in_flight: &mut HashMap<u64, MonoTime>,
        flight: &mut InFlight,
        now: MonoTime,
    ) {
        flight.request = request;
        in_flight.insert(request, now.after(self.deadline));
    }

    /// Reports that a request that the store may have admitted is not sent.
    pub(super) fn withdraw(self: &Arc<Self>, settings: Settings, request: u64) {
        self.report(settings, request, RequestOutcome::Unsent);
    }

    /// Returns the number of known gateways.
    pub(super) fn gateways(&self) -> u32 {
        self.gateways.load(Ordering::Relaxed)
    }

    /// Returns the number of gateways that share nothing while the store is lost. A budget that no other gateway has reported may
    /// be in use elsewhere too. If limits were shared, there are at least two, because another gateway may join while this one is
    /// cut off.
    pub(super) fn replicas(&self, settings: Settings) -> u32 {
        let least = if self.was_shared() { 2 } else { 1 };
        settings.replicas.max(self.gateways()).max(self.store.gateways()).max(least)
    }

    /// Returns whether this gateway has joined.
    pub(super) fn is_joined(&self) -> bool {
        self.is_joined.load(Ordering::Relaxed)
    }

    /// Records that this gateway is no longer a member. It joins again with the next heartbeat.
    pub(super) fn mark_left(&self) {
        self.is_joined.store(false, Ordering::Relaxed);
    }

    /// Asks the store whether a request may be sent.
    pub(super) async fn acquire(
        &self,
        settings: Settings,
        asking: AcquireRequest,
        pending: Option<&PendingCharge<'_>>,
    ) -> Result<(Acquired, Part), Unavailable> {
        let charge = pending.map(|pending| (pending.key(), pending.quota()));
        let charge = charge.as_ref().map(|(key, quota)| Charge { key, quota: *quota });
        self.store.acquire(self.limit(settings), self.member(), asking, charge).await
    }

    /// Reports the outcome of a request in the background.
    pub(super) fn settle(
        self: &Arc<Self>,
        in_flight: &mut HashMap<u64, MonoTime>,
        settings: Settings,
        flight: &InFlight,
        fate: RequestOutcome,
    ) {
        if in_flight.remove(&flight.request).is_some() {
            self.report(settings, flight.request, fate);
        }
    }

    /// Reports that the edge limits the rate. The store counts the report as one more request, for one window.
    pub(super) fn report_edge_limit(self: &Arc<Self>, settings: Settings, retry_after: Option<Duration>) {
        let fate =
            RequestOutcome::answered(Duration::ZERO, UpstreamOutcome::Edge { retry_after }, LimitReadings::default());
        self.report(settings, self.next_request(), fate);
    }

    fn report(self: &Arc<Self>, settings: Settings, request: u64, fate: RequestOutcome) {
        if !self.store.is_enabled() {
            return;
        }
        let own = self.clone();
        self.store.spawn(async move {
            let _ = own.store.settle(own.limit(settings), request, fate).await;
        });
    }

    /// Joins the store, or reports while the store does not decide. The store replaces its information about this gateway by
    /// `missed`.
    pub(super) async fn join(
        &self,
        settings: Settings,
        joins: bool,
        missed: &[ReplayedRequest],
    ) -> Result<(), Unavailable> {
        let times = self.joins.fetch_add(1, Ordering::Relaxed) + 1;
        let member = Member { gateway: &self.store.gateway, times };
        let gateways = self.store.join(self.limit(settings), member, joins, missed).await?;
        self.gateways.store(gateways.max(1), Ordering::Relaxed);
        self.is_joined.store(joins, Ordering::Relaxed);
        Ok(())
    }

    /// Sends a heartbeat, and returns the state of the store.
    pub(super) async fn heartbeat(&self, settings: Settings, epoch: u64) -> Result<HeartbeatReply, Unavailable> {
        let heard = self.store.heartbeat(self.limit(settings), self.member(), epoch).await?;
        self.gateways.store(heard.gateways.max(1), Ordering::Relaxed);
        self.store.observe_peers(heard.gateways);
        Ok(heard)
    }

    /// Returns whether heartbeats are sent.
    pub(super) fn has_heartbeat(&self) -> bool {
        self.has_heartbeat.load(Ordering::Relaxed)
    }

    /// Starts the heartbeats of `budget`. Returns whether it could.
    pub(super) fn spawn_heartbeat(&self, budget: &Arc<CredentialBudget>) -> bool {
        if !self.has_heartbeat.swap(true, Ordering::Relaxed) {
            return self.store.spawn(run_heartbeat(Arc::downgrade(budget), self.store.watch()));
        }
        true
    }

    /// Says goodbye, so that the others do not count this gateway as cut off.
    pub(super) async fn leave_store(&self) {
        self.mark_left();
        self.has_heartbeat.store(false, Ordering::Relaxed);
        if self.store.is_enabled() {
            let _ = self.store.leave(&self.keys, self.member()).await;
        }
    }

    fn limit(&self, settings: Settings) -> Limit<'_> {
        Limit { keys: &self.keys, settings, deadline: self.deadline, clock: None }
    }

    fn member(&self) -> Member<'_> {
        Member { gateway: &self.store.gateway, times: self.joins.load(Ordering::Relaxed) }
    }
}

/// Sends heartbeats as long as the budget exists.
async fn run_heartbeat(budget: Weak<CredentialBudget>, mut news: tokio::sync::watch::Receiver<BreakerState>) {
    loop {
        let state = *news.borrow_and_update();
        let member = match budget.upgrade() {
            Some(budget) if budget.heartbeat(state).await => budget.membership(),
            // A request that came during the goodbye needs the membership again.
            Some(budget) if !budget.is_unused() => return budget.start(),
            _ => return,
        };
        let Some(member) = member else { return };
        tokio::select! {
            _ = timeout(HEARTBEAT_INTERVAL, news.changed()) => {}
            () = member.wake.notified() => {}
        }
    }
}
