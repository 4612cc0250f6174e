//! The budget of one credential: a limiter behind a lock, its waiting requests, and the task that wakes them.

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
use crate::ratelimit::fair_queue::{Asker, Ticket};
use crate::ratelimit::limiter::{Asked, Flight, Machine, Next};
use crate::ratelimit::scope::Names;
use crate::ratelimit::status::Standing;
use crate::ratelimit::{Held, Hold, Settings};
use crate::refusal::Refusal;
use crate::time::{Clock, MonoTime, OncePerSecond};
use operations::Operation;
use uncommitted::Boarding;

/// The budget of one credential, or of one of its operations that Cal.com counts apart.
#[derive(Debug)]
pub struct Budget {
    name: Arc<str>,
    clock: Clock,
    state: Mutex<State>,
    /// Tells the driver that something has changed.
    changed: Notify,
    /// Of a credential's budget: its operations with limits of their own.
    operations: Mutex<HashMap<u64, Operation>>,
    /// Whether some of them were learned from responses.
    has_learned: AtomicBool,
    /// Of an API key that was replaced: the budget of the key that took its place.
    replacement: Mutex<Weak<Budget>>,
    /// Whether a limit lower than configured is still to be logged.
    watches_limit: AtomicBool,
    /// Of an operation's budget: that of its credential.
    credential: Option<Weak<Budget>>,
    absurd: AtomicBool,
    warned: OncePerSecond,
    /// Its place in the store that other gateways go by, too.
    member: Option<Arc<Membership>>,
}

#[derive(Debug)]
struct State {
    machine: Machine,
    settings: Settings,
    /// The names of the credential's limits.
    names: Names,
    waiting: HashMap<Ticket, oneshot::Sender<Flight>>,
    /// The task that lets go those whose turn it is, while it runs.
    driver: Weak<Driver>,
    /// Requests without an answer, by what the store knows them by, and by when they have one or never will.
    flying: HashMap<u64, MonoTime>,
}

impl Budget {
    /// A budget that nothing has been sent on.
    pub(super) fn new(name: Arc<str>, settings: Settings, clock: Clock, member: Option<Membership>) -> Self {
        // Random, not of the credential: its waits have to differ from those of other gateways with the same credential.
        let mut machine = Machine::new(settings, random::seed());
        machine.follow_first_answer();
        Self {
            name,
            clock,
            state: Mutex::new(State {
                machine,
                settings,
                names: Names::default(),
                waiting: HashMap::new(),
                driver: Weak::new(),
                flying: HashMap::new(),
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

    /// Other settings, as after a reload. What has been sent stays counted.
    pub fn configure(&self, settings: Settings) {
        let mut state = self.lock();
        if state.settings != settings {
            state.settings = settings;
            // Those that have been heard of are still there.
            let replicas = self.member.as_ref().map_or(settings.replicas, |member| member.replicas(settings));
            state.machine.configure(Settings { replicas, ..settings });
            self.change(&mut state);
        }
    }

    /// Logs once from now on when Cal.com grants fewer requests than configured.
    pub(super) fn watch_limit(&self) {
        let state = self.lock();
        let is_lower = state.machine.limit() < state.settings.limit;
        drop(state);
        self.watches_limit.fetch_or(!is_lower, Ordering::Relaxed);
    }

    /// Another key took the place of this one's: how it stands is how that stands.
    pub(super) fn replace_by(&self, replacement: &Arc<Self>) {
        *self.replacement.lock() = Arc::downgrade(replacement);
    }

    /// What the credential is called.
    pub(super) fn name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// The hash tag of its keys in the store, where gateways share it.
    pub(super) fn tag(&self) -> Option<Arc<str>> {
        self.member.as_ref().map(|member| member.tag())
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let replacement = self.replacement.lock().upgrade();
        if let Some(replacement) = replacement {
            return replacement.standing();
        }
        let now = self.clock.now();
        self.lock().machine.standing(now)
    }

    /// Whether a new one would be the same.
    pub(super) fn is_unused(&self) -> bool {
        let now = self.clock.now();
        self.are_operations_unused() && self.lock().machine.is_unused(now)
    }

    /// A place for one request of `asker`, now or within `patience`; and what it waited for, if it did. A `pending`
    /// charge is made in the same call of the store.
    pub(super) async fn take(
        self: &Arc<Self>,
        asker: Asker,
        patience: Duration,
        mut pending: Option<&PendingCharge<'_>>,
    ) -> Result<(Flight, Option<Held>), Refusal> {
        let started = self.clock.now();
        let mut is_new = true;
        let (mut place, by) = loop {
            match self.line_up(asker, patience, started, std::mem::take(&mut is_new)) {
                Lined::Up(place, by) => break (place, by),
                Lined::Through(boarding) => match &self.member {
                    None => {
                        take_along(pending).await?;
                        return boarding.go().map(|flight| (flight, None)).ok_or(Refusal::Internal);
                    }
                    Some(member) => {
                        if let Some(flight) = Box::pin(self.confirm(member, boarding, &asker, &mut pending)).await? {
                            return Ok((flight, None));
                        }
                    }
                },
                Lined::Refused(held) => {
                    take_along(pending).await?;
                    return Err(Refusal::UpstreamBudget(held));
                }
            }
        };
        take_along(pending).await?;
        self.drive();
        if let Ok(Ok(flight)) = timeout(patience, &mut place.turn).await {
            return Ok((flight, Some(Held { by, wait: self.clock.now().since(started) })));
        }
        drop(place);
        let now = self.clock.now();
        Err(Refusal::UpstreamBudget(self.lock().machine.held(&asker, by, now)))
    }

    /// A place whatever the budget says, and what would have held the request.
    pub(super) async fn take_only_observing(
        self: &Arc<Self>,
        asker: &Asker,
        pending: Option<&PendingCharge<'_>>,
    ) -> Result<(Flight, Option<Hold>), Refusal> {
        let now = self.clock.now();
        let (flight, by) = self.lock().machine.ask_only_observing(asker, now);
        let boarding = Boarding::new(self, flight);
        match &self.member {
            None => {
                take_along(pending).await?;
                boarding.go().map(|flight| (flight, by)).ok_or(Refusal::Internal)
            }
            Some(member) => Box::pin(self.confirm_anyway(member, boarding, by, pending)).await,
        }
    }

    /// A request was sent, and nothing more will be known of it.
    pub(super) fn lost(&self, flight: &Flight, within: Duration) {
        let mut state = self.lock();
        self.lose(&mut state, flight, within);
        self.change(&mut state);
    }

    /// A request has arrived within that time, if it ever does.
    fn lose(&self, state: &mut State, flight: &Flight, within: Duration) {
        state.machine.lost(flight, self.clock.now().after(within));
        if let Some(member) = &self.member {
            member.settle(&mut state.flying, state.settings, flight, RequestOutcome::Lost { within });
        }
    }

    /// A request was not sent after all.
    pub(super) fn unsent(&self, flight: &Flight) {
        let mut state = self.lock();
        self.take_back(&mut state, flight);
        self.change(&mut state);
    }

    fn take_back(&self, state: &mut State, flight: &Flight) {
        state.machine.unsent(flight);
        if let Some(member) = &self.member {
            member.settle(&mut state.flying, state.settings, flight, RequestOutcome::Unsent);
        }
    }

    pub(super) fn settings(&self) -> Settings {
        self.lock().settings
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Something has changed: lets go all that may, and has the driver look when the next may.
    fn change(&self, state: &mut State) {
        if !state.waiting.is_empty() {
            self.let_go(state);
            self.changed.notify_one();
        }
    }

    /// Lets go all that may without asking anybody. Tells when the next may or is to be asked for, if time alone will tell.
    fn let_go(&self, state: &mut State) -> Option<MonoTime> {
        let now = self.clock.now();
        loop {
            match state.machine.next(now) {
                Next::Go(ticket, mut flight) => {
                    if let Some(member) = &self.member {
                        member.depart(&mut state.flying, &mut flight, now);
                    }
                    self.hand_over(state, ticket, flight);
                }
                Next::At(at) => return Some(at),
                Next::Idle => return None,
            }
        }
    }

    fn hand_over(&self, state: &mut State, ticket: Ticket, flight: Flight) {
        let unwanted = match state.waiting.remove(&ticket) {
            Some(sender) => sender.send(flight).err(),
            None => Some(flight),
        };
        if let Some(flight) = unwanted {
            self.take_back(state, &flight);
        }
    }

    /// A request asks; it `is_new` the first time that it does.
    fn line_up(self: &Arc<Self>, asker: Asker, patience: Duration, now: MonoTime, is_new: bool) -> Lined<'_> {
        let mut state = self.lock();
        if is_new {
            state.machine.comes(&asker, now);
        }
        match state.machine.ask(&asker, patience, now) {
            Asked::Go(flight) => Lined::Through(Boarding::new(self, flight)),
            Asked::Refuse(held) => Lined::Refused(held),
            Asked::Wait(ticket, by) => {
                let (sender, turn) = oneshot::channel();
                state.waiting.insert(ticket, sender);
                self.change(&mut state);
                Lined::Up(Place { budget: self.clone(), ticket, asker, turn }, by)
            }
        }
    }

    /// Starts the task that lets go those whose turn it is, unless it runs or nobody waits.
    #[expect(clippy::disallowed_methods, reason = "the task that serves the queue ends when the queue is empty")]
    fn drive(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.driver.strong_count() > 0 || state.waiting.is_empty() {
            return;
        }
        let driver = Arc::new(Driver(self.clone()));
        state.driver = Arc::downgrade(&driver);
        drop(state);
        tokio::spawn(async move {
            while let Some(wait) = driver.turn().await {
                let changed = driver.0.changed.notified();
                match wait {
                    Some(wait) => drop(timeout(wait, changed).await),
                    None => changed.await,
                }
            }
        });
    }
}

/// Makes a pending charge where no budget is asked along. What asks the store is boxed, here and elsewhere: it is
/// large, and most gateways have none.
async fn take_along(pending: Option<&PendingCharge<'_>>) -> Result<(), Refusal> {
    match pending {
        Some(pending) => Box::pin(pending.charge()).await,
        None => Ok(()),
    }
}

/// What came of asking.
enum Lined<'a> {
    /// It waits, and for what.
    Up(Place, Hold),
    Through(Boarding<'a>),
    Refused(Held),
}

/// The task that lets go those whose turn it is, while any wait. It ends with the worker that it runs on; then the next
/// request that waits starts another.
#[derive(Debug)]
struct Driver(Arc<Budget>);

impl Driver {
    /// Lets go all that may. Tells how long nothing will change by itself, or `None` where nobody waits any more.
    async fn turn(&self) -> Option<Option<Duration>> {
        if let Some(member) = &self.0.member {
            self.0.let_go_by_store(member).await;
        }
        let mut state = self.0.lock();
        let next = self.0.let_go(&mut state);
        if state.waiting.is_empty() {
            // From here on the next that waits starts another.
            state.driver = Weak::new();
            return None;
        }
        Some(next.map(|at| at.since(self.0.clock.now())))
    }
}

/// A place in the queue. Whoever leaves gives it up, and what has been handed over in the same moment, too.
struct Place {
    budget: Arc<Budget>,
    ticket: Ticket,
    asker: Asker,
    turn: oneshot::Receiver<Flight>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        state.waiting.remove(&self.ticket);
        state.machine.leave(self.ticket, &self.asker);
        if let Ok(flight) = self.turn.try_recv() {
            self.budget.take_back(&mut state, &flight);
            self.budget.change(&mut state);
        }
        // The driver ends where nobody waits. It may be waiting for what only an answer would change.
        if state.waiting.is_empty() && state.driver.strong_count() > 0 {
            self.budget.changed.notify_one();
        }
    }
}
