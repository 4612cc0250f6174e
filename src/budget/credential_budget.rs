//! Budget of one credential: a limiter behind a lock, the waiting requests, and the task that wakes them.

mod operations;
mod responses;
mod shared_mode;
mod uncommitted;
mod used_windows;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::budget::membership::Membership;
use crate::limit::PendingCharge;
use crate::limit_store::RequestOutcome;
use crate::random;
use crate::ratelimit::fair_queue::{Flow, Ticket};
use crate::ratelimit::limiter::{BudgetLimiter, Decision, InFlight, Wakeup};
use crate::ratelimit::scope::LimitNames;
use crate::ratelimit::status::BudgetStatus;
use crate::ratelimit::{Settings, ThrottleReason, Throttled};
use crate::refusal::Refusal;
use crate::time::{Clock, MonoTime, OncePerSecond};
use operations::Operation;
use uncommitted::UncommittedSlot;

/// Budget of one credential, or of one operation that Cal.com counts separately.
#[derive(Debug)]
pub struct CredentialBudget {
    name: Arc<str>,
    clock: Clock,
    state: Mutex<State>,
    /// Notifies the dispatcher of a change.
    changed: Notify,
    /// Operations with limits of their own. Only in the budget of a credential.
    operations: Mutex<HashMap<u64, Operation>>,
    /// Whether some of them were learned from responses.
    has_learned: AtomicBool,
    /// Budget of the key that replaced this API key.
    replacement: Mutex<Weak<CredentialBudget>>,
    /// Whether a limit below the configured one still has to be logged.
    watches_limit: AtomicBool,
    /// Budget of the credential. Only in the budget of an operation.
    credential: Option<Weak<CredentialBudget>>,
    absurd: AtomicBool,
    warned: OncePerSecond,
    /// Membership in the limit store, if gateways share limits.
    member: Option<Arc<Membership>>,
}

#[derive(Debug)]
struct State {
    limiter: BudgetLimiter,
    settings: Settings,
    /// Names of the credential's limits.
    names: LimitNames,
    waiting: HashMap<Ticket, oneshot::Sender<InFlight>>,
    /// Task that serves the queue, while it runs.
    dispatcher: Weak<Dispatcher>,
    /// Requests without a response: their identifiers in the store, and when they have a response or never get one.
    in_flight: HashMap<u64, MonoTime>,
}

impl CredentialBudget {
    /// Creates a budget without requests.
    pub(super) fn new(name: Arc<str>, settings: Settings, clock: Clock, member: Option<Membership>) -> Self {
        // The seed is random and not derived from the credential, because the waits of gateways with the same credential have to
        // differ.
        let mut limiter = BudgetLimiter::new(settings, random::seed());
        limiter.await_first_response();
        Self {
            name,
            clock,
            state: Mutex::new(State {
                limiter,
                settings,
                names: LimitNames::default(),
                waiting: HashMap::new(),
                dispatcher: Weak::new(),
                in_flight: HashMap::new(),
            }),
            changed: Notify::new(),
            operations: Mutex::default(),
            has_learned: AtomicBool::new(false),
            replacement: Mutex::default(),
            watches_limit: AtomicBool::new(false),
            credential: None,
            absurd: AtomicBool::new(false),
            warned: OncePerSecond::default(),
            member: member.map(Arc::new),
        }
    }

    /// Applies a reload. Sent requests stay counted.
    pub fn configure(&self, settings: Settings) {
        let mut state = self.lock();
        if state.settings != settings {
            state.settings = settings;
            // Gateways known from the store are still there.
            let replicas = self.member.as_ref().map_or(settings.replicas, |member| member.replicas(settings));
            state.limiter.configure(Settings { replicas, ..settings });
            self.change(&mut state);
        }
    }

    /// Logs once, from now on, if Cal.com grants fewer requests than configured.
    pub(super) fn watch_limit(&self) {
        let state = self.lock();
        let is_lower = state.limiter.limit() < state.settings.limit;
        drop(state);
        self.watches_limit.fetch_or(!is_lower, Ordering::Relaxed);
    }

    /// Reports the state of the budget of another key, which replaced this one.
    pub(super) fn replace_by(&self, replacement: &Arc<Self>) {
        *self.replacement.lock() = Arc::downgrade(replacement);
    }

    /// Returns the name of the credential.
    pub(super) fn name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// Returns the hash tag of its keys in the store, if gateways share limits.
    pub(super) fn tag(&self) -> Option<Arc<str>> {
        self.member.as_ref().map(|member| member.tag())
    }

    /// Returns the state for metrics and `explain`.
    pub fn status(&self) -> BudgetStatus {
        let replacement = self.replacement.lock().upgrade();
        if let Some(replacement) = replacement {
            return replacement.status();
        }
        let now = self.clock.now();
        self.lock().limiter.status(now)
    }

    /// Returns whether the budget is equal to a new one.
    pub(super) fn is_unused(&self) -> bool {
        let now = self.clock.now();
        self.are_operations_unused() && self.lock().limiter.is_unused(now)
    }

    /// Admits one request of `flow` now, or within `patience`. Also returns the throttling, if the request waited. A `pending`
    /// charge is made in the same call of the store.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        flow: Flow,
        patience: Duration,
        mut pending: Option<&PendingCharge<'_>>,
    ) -> Result<(InFlight, Option<Throttled>), Refusal> {
        let started = self.clock.now();
        let mut is_new = true;
        let (mut place, by) = loop {
            match self.enqueue(flow, patience, started, std::mem::take(&mut is_new)) {
                Enqueued::Queued(place, by) => break (place, by),
                Enqueued::Admitted(uncommitted) => match &self.member {
                    None => {
                        charge_now(pending).await?;
                        return uncommitted.commit().map(|flight| (flight, None)).ok_or(Refusal::Internal);
                    }
                    Some(member) => {
                        if let Some(flight) =
                            Box::pin(self.confirm_with_store(member, uncommitted, &flow, &mut pending)).await?
                        {
                            return Ok((flight, None));
                        }
                    }
                },
                Enqueued::Rejected(held) => {
                    charge_now(pending).await?;
                    return Err(Refusal::UpstreamBudget(held));
                }
            }
        };
        charge_now(pending).await?;
        self.spawn_dispatcher();
        if let Ok(Ok(flight)) = timeout(patience, &mut place.turn).await {
            return Ok((flight, Some(Throttled { by, wait: self.clock.now().since(started) })));
        }
        drop(place);
        let now = self.clock.now();
        Err(Refusal::UpstreamBudget(self.lock().limiter.throttled(&flow, by, now)))
    }

    /// Admits a request in any case. Also returns the reason for which it would have been throttled.
    pub(super) async fn acquire_observed(
        self: &Arc<Self>,
        flow: &Flow,
        pending: Option<&PendingCharge<'_>>,
    ) -> Result<(InFlight, Option<ThrottleReason>), Refusal> {
        let now = self.clock.now();
        let (flight, by) = self.lock().limiter.admit_observed(flow, now);
        let uncommitted = UncommittedSlot::new(self, flight);
        match &self.member {
            None => {
                charge_now(pending).await?;
                uncommitted.commit().map(|flight| (flight, by)).ok_or(Refusal::Internal)
            }
            Some(member) => Box::pin(self.confirm_unlimited(member, uncommitted, by, pending)).await,
        }
    }

    /// Records that a request was sent and its outcome stays unknown.
    pub(super) fn mark_lost(&self, flight: &InFlight, within: Duration) {
        let mut state = self.lock();
        self.lose(&mut state, flight, within);
        self.change(&mut state);
    }

    /// Records that a request has arrived within this time, if it ever does.
    fn lose(&self, state: &mut State, flight: &InFlight, within: Duration) {
        state.limiter.mark_lost(flight, self.clock.now().after(within));
        if let Some(member) = &self.member {
            member.settle(&mut state.in_flight, state.settings, flight, RequestOutcome::Lost { within });
        }
    }

    /// Records that a request was not sent.
    pub(super) fn mark_unsent(&self, flight: &InFlight) {
        let mut state = self.lock();
        self.cancel(&mut state, flight);
        self.change(&mut state);
    }

    fn cancel(&self, state: &mut State, flight: &InFlight) {
        state.limiter.mark_unsent(flight);
        if let Some(member) = &self.member {
            member.settle(&mut state.in_flight, state.settings, flight, RequestOutcome::Unsent);
        }
    }

    pub(super) fn settings(&self) -> Settings {
        self.lock().settings
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Applies a change: sends all waiting requests that may be sent, and wakes the dispatcher to set its timer.
    fn change(&self, state: &mut State) {
        if !state.waiting.is_empty() {
            self.dispatch(state);
            self.changed.notify_one();
        }
    }

    /// Sends all waiting requests that this gateway may admit. Returns when the next one may be sent, or when the store is asked,
    /// if time alone decides.
    fn dispatch(&self, state: &mut State) -> Option<MonoTime> {
        let now = self.clock.now();
        loop {
            match state.limiter.poll_next(now) {
                Wakeup::Admit(ticket, mut flight) => {
                    if let Some(member) = &self.member {
                        member.register(&mut state.in_flight, &mut flight, now);
                    }
                    self.notify_waiter(state, ticket, flight);
                }
                Wakeup::At(at) => return Some(at),
                Wakeup::Idle => return None,
            }
        }
    }

    fn notify_waiter(&self, state: &mut State, ticket: Ticket, flight: InFlight) {
        let unwanted = match state.waiting.remove(&ticket) {
            Some(sender) => sender.send(flight).err(),
            None => Some(flight),
        };
        if let Some(flight) = unwanted {
            self.cancel(state, &flight);
        }
    }

    /// Admits, queues or rejects a request. `is_new` holds for the first attempt.
    fn enqueue(self: &Arc<Self>, flow: Flow, patience: Duration, now: MonoTime, is_new: bool) -> Enqueued<'_> {
        let mut state = self.lock();
        if is_new {
            state.limiter.record_arrival(&flow, now);
        }
        match state.limiter.admit(&flow, patience, now) {
            Decision::Admit(flight) => Enqueued::Admitted(UncommittedSlot::new(self, flight)),
            Decision::Reject(held) => Enqueued::Rejected(held),
            Decision::Queue(ticket, by) => {
                let (sender, turn) = oneshot::channel();
                state.waiting.insert(ticket, sender);
                self.change(&mut state);
                Enqueued::Queued(QueueGuard { budget: self.clone(), ticket, flow, turn }, by)
            }
        }
    }

    /// Starts the task that serves the queue, unless it runs or no request waits.
    #[expect(clippy::disallowed_methods, reason = "the task that serves the queue ends when the queue is empty")]
    fn spawn_dispatcher(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.dispatcher.strong_count() > 0 || state.waiting.is_empty() {
            return;
        }
        let dispatcher = Arc::new(Dispatcher(self.clone()));
        state.dispatcher = Arc::downgrade(&dispatcher);
        drop(state);
        tokio::spawn(async move {
            while let Some(wait) = dispatcher.run_once().await {
                let changed = dispatcher.0.changed.notified();
                match wait {
                    Some(wait) => drop(timeout(wait, changed).await),
                    None => changed.await,
                }
            }
        });
    }
}

/// Makes a pending charge without a call for the budget. Futures of store calls are boxed, here and elsewhere: they are large,
/// and most gateways have no store.
async fn charge_now(pending: Option<&PendingCharge<'_>>) -> Result<(), Refusal> {
    match pending {
        Some(pending) => Box::pin(pending.charge()).await,
        None => Ok(()),
    }
}

/// Result of an attempt.
enum Enqueued<'a> {
    /// The request waits, for this reason.
    Queued(QueueGuard, ThrottleReason),
    Admitted(UncommittedSlot<'a>),
    Rejected(Throttled),
}

/// Task that serves the queue while requests wait. It ends with the worker on which it runs. Then the next waiting request starts
/// another.
#[derive(Debug)]
struct Dispatcher(Arc<CredentialBudget>);

impl Dispatcher {
    /// Sends all waiting requests that may be sent. Returns how long nothing changes by itself, or `None` if no request waits.
    async fn run_once(&self) -> Option<Option<Duration>> {
        if let Some(member) = &self.0.member {
            self.0.dispatch_shared(member).await;
        }
        let mut state = self.0.lock();
        let next = self.0.dispatch(&mut state);
        if state.waiting.is_empty() {
            // From here on, the next waiting request starts another task.
            state.dispatcher = Weak::new();
            return None;
        }
        Some(next.map(|at| at.since(self.0.clock.now())))
    }
}

/// A request in the queue. Dropping it removes the request, and releases a slot that it received at the same moment.
struct QueueGuard {
    budget: Arc<CredentialBudget>,
    ticket: Ticket,
    flow: Flow,
    turn: oneshot::Receiver<InFlight>,
}

impl Drop for QueueGuard {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        state.waiting.remove(&self.ticket);
        state.limiter.cancel(self.ticket, &self.flow);
        if let Ok(flight) = self.turn.try_recv() {
            self.budget.cancel(&mut state, &flight);
            self.budget.change(&mut state);
        }
        // The dispatcher ends when no request waits. It may be waiting for a change that only a response brings.
        if state.waiting.is_empty() && state.dispatcher.strong_count() > 0 {
            self.budget.changed.notify_one();
        }
    }
}
