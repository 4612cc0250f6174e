//! One budget as all workers share it: the state machine behind a lock, the requests that wait for it, and what wakes them.

mod boarding;
mod by_store;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::headers::{Ignored, Reading, Verdict};
use super::machine::{Asked, Flight, Machine, Next};
use super::membership::Membership;
use super::queue::{Asker, Ticket};
use super::standing::Standing;
use super::{Held, Hold, Settings, headers};
use crate::limit::{Clock, Due, Seldom, Tick};
use crate::refusal::Refusal;
use crate::sharing::scripts::Fate;
use boarding::Boarding;

/// The budget of one credential, or of one of its operations that Cal.com counts apart.
#[derive(Debug)]
pub struct Budget {
    name: Arc<str>,
    clock: Clock,
    state: Mutex<State>,
    /// Tells the driver that something has changed.
    changed: Notify,
    apart: Mutex<HashMap<u64, Arc<Budget>>>,
    absurd: AtomicBool,
    warned: Seldom,
    /// Its place in the store that other gateways go by, too.
    member: Option<Arc<Membership>>,
}

#[derive(Debug)]
struct State {
    machine: Machine,
    settings: Settings,
    waiting: HashMap<Ticket, oneshot::Sender<Flight>>,
    /// The task that lets go those whose turn it is, while it runs.
    driver: Weak<Driver>,
    /// Requests without an answer, by what the store knows them by, and by when they have one or never will.
    flying: HashMap<u64, Tick>,
}

impl Budget {
    /// A budget that nothing has been sent on.
    pub(super) fn new(name: Arc<str>, settings: Settings, clock: Clock, seed: u64, member: Option<Membership>) -> Self {
        let machine = Machine::new(settings, seed);
        Self {
            name,
            clock,
            state: Mutex::new(State {
                machine,
                settings,
                waiting: HashMap::new(),
                driver: Weak::new(),
                flying: HashMap::new(),
            }),
            changed: Notify::new(),
            apart: Mutex::default(),
            absurd: AtomicBool::new(false),
            warned: Seldom::default(),
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

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let now = self.clock.now();
        self.lock().machine.standing(now)
    }

    /// Whether a new one would be the same.
    pub(super) fn is_unused(&self) -> bool {
        let now = self.clock.now();
        let apart = self.apart.lock().unwrap_or_else(PoisonError::into_inner);
        apart.values().all(|budget| budget.is_unused()) && self.lock().machine.is_unused(now)
    }

    /// The budget of an operation of this credential that has a limit of its own.
    pub(super) fn counted_apart(&self, key: u64, settings: Settings) -> Arc<Budget> {
        let mut apart = self.apart.lock().unwrap_or_else(PoisonError::into_inner);
        let member = || self.member.as_ref().map(|member| member.of_limit(&format!("{key:016x}")));
        let fresh = || Arc::new(Self::new(self.name.clone(), settings, self.clock, key, member()));
        let budget = apart.entry(key).or_insert_with(fresh).clone();
        drop(apart);
        budget.configure(settings);
        budget
    }

    /// A place for one request of `asker`, now or within `patience`; and what it waited for, if it did. The token that is
    /// `due`, if one is, is taken along.
    pub(super) async fn take(
        self: &Arc<Self>,
        asker: Asker,
        patience: Duration,
        mut due: Option<&Due<'_>>,
    ) -> Result<(Flight, Option<Held>), Refusal> {
        let started = self.clock.now();
        let mut is_new = true;
        let (mut place, by) = loop {
            match self.line_up(asker, patience, started, std::mem::take(&mut is_new)) {
                Lined::Up(place, by) => break (place, by),
                Lined::Through(boarding) => match &self.member {
                    None => {
                        take_along(due).await?;
                        return boarding.go().map(|flight| (flight, None)).ok_or(Refusal::Internal);
                    }
                    Some(member) => {
                        if let Some(flight) = Box::pin(self.confirm(member, boarding, &asker, &mut due)).await? {
                            return Ok((flight, None));
                        }
                    }
                },
                Lined::Refused(held) => {
                    take_along(due).await?;
                    return Err(Refusal::UpstreamBudget(held));
                }
            }
        };
        take_along(due).await?;
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
        due: Option<&Due<'_>>,
    ) -> Result<(Flight, Option<Hold>), Refusal> {
        let now = self.clock.now();
        let (flight, by) = self.lock().machine.ask_only_observing(asker, now);
        let boarding = Boarding::new(self, flight);
        match &self.member {
            None => {
                take_along(due).await?;
                boarding.go().map(|flight| (flight, by)).ok_or(Refusal::Internal)
            }
            Some(member) => Box::pin(self.confirm_anyway(member, boarding, by, due)).await,
        }
    }

    /// The head of an answer has come. Tells what holds the credential from now on where the limiter refused the request.
    pub(super) fn answered(&self, flight: &Flight, status: StatusCode, fields: &HeaderMap) -> Option<Held> {
        let now = self.clock.now();
        let mut state = self.lock();
        let window = state.settings.window;
        let Reading { verdict, told, ignored } = headers::read(status, fields, std::time::SystemTime::now(), window);
        if told.absurd || ignored.is_some() {
            self.warn_of_fields(told.absurd, ignored);
        }
        let known = matches!(verdict, Verdict::Passed | Verdict::Unclear) || state.machine.is_refused(now);
        let held = state.machine.answered(flight, verdict, &told, now);
        if let Some(held) = held.filter(|_| !known) {
            self.warn_of_block(status, held);
        }
        if let Some(member) = &self.member {
            let (ago, settings) = (now.since(flight.sent()), state.settings);
            member.settle(&mut state.flying, settings, flight, Fate::answered(ago, verdict, told));
        }
        self.change(&mut state);
        held
    }

    /// The edge limits the rate, as the body of an answer says whose head was taken for no refusal.
    pub(super) fn limited_by_edge(&self, status: StatusCode, fields: &HeaderMap) {
        let now = self.clock.now();
        let mut state = self.lock();
        let (settings, known) = (state.settings, state.machine.is_refused(now));
        let (retry_after, ignored) = headers::retry_after(fields, std::time::SystemTime::now(), settings.window);
        self.warn_of_fields(false, ignored);
        let held = state.machine.limited_by_edge(retry_after, now);
        if !known {
            self.warn_of_block(status, held);
        }
        if let Some(member) = &self.member {
            // The store has settled the request itself.
            member.tell_of_edge_limit(settings, retry_after);
        }
        self.change(&mut state);
    }

    fn warn_of_block(&self, status: StatusCode, held: Held) {
        let (credential, status, seconds) = (&*self.name, status.as_u16(), held.wait.as_secs());
        tracing::warn!(
            credential,
            status,
            by = held.by.name(),
            seconds,
            "Cal.com's limiter refused a request: the credential is blocked for so many seconds"
        );
    }

    /// Logs fields of an answer that are not used, at most once a second.
    fn warn_of_fields(&self, absurd: bool, ignored: Option<Ignored>) {
        if absurd && !self.absurd.swap(true, Ordering::Relaxed) {
            tracing::warn!(credential = &*self.name, "Cal.com's rate limit headers make no sense; they are ignored");
        }
        if let Some(Ignored { field, seconds }) = ignored.filter(|_| self.warned.is_due(self.clock.now())) {
            let credential = &*self.name;
            tracing::warn!(credential, field, seconds, "ignoring a time from upstream that is longer than any block");
        }
    }

    /// A request was sent, and nothing more will be known of it.
    pub(super) fn lost(&self, flight: &Flight, within: Duration) {
        let deadline = self.clock.now().after(within);
        let mut state = self.lock();
        state.machine.lost(flight, deadline);
        if let Some(member) = &self.member {
            let settings = state.settings;
            member.settle(&mut state.flying, settings, flight, Fate::Lost { within });
        }
        self.change(&mut state);
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
            member.settle(&mut state.flying, state.settings, flight, Fate::Unsent);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has changed: lets go all that may, and has the driver look when the next may.
    fn change(&self, state: &mut State) {
        if !state.waiting.is_empty() {
            self.let_go(state);
            self.changed.notify_one();
        }
    }

    /// Lets go all that may without asking anybody. Tells when the next may or is to be asked for, if time alone will tell.
    fn let_go(&self, state: &mut State) -> Option<Tick> {
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
    fn line_up(self: &Arc<Self>, asker: Asker, patience: Duration, now: Tick, is_new: bool) -> Lined<'_> {
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

/// Takes the token that is due, where no budget is asked along. What asks the store is boxed, here and elsewhere: it is
/// large, and most gateways have none.
async fn take_along(due: Option<&Due<'_>>) -> Result<(), Refusal> {
    match due {
        Some(due) => Box::pin(due.take()).await,
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
