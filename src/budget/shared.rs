//! One budget as all workers share it: the state machine behind a lock, the requests that wait for it, and what wakes them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::machine::{Asked, Flight, Machine, Next, Standing};
use super::queue::{Asker, Ticket};
use super::{Held, Hold, Settings, headers};
use crate::limit::{Clock, Tick};

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
}

#[derive(Debug)]
struct State {
    machine: Machine,
    settings: Settings,
    waiting: HashMap<Ticket, oneshot::Sender<Flight>>,
    /// Whether a task lets go those whose turn it is.
    driven: bool,
}

impl Budget {
    /// A budget that nothing has been sent on.
    pub(super) fn new(name: Arc<str>, settings: Settings, clock: Clock, seed: u64) -> Self {
        let machine = Machine::new(settings, seed);
        Self {
            name,
            clock,
            state: Mutex::new(State { machine, settings, waiting: HashMap::new(), driven: false }),
            changed: Notify::new(),
            apart: Mutex::default(),
            absurd: AtomicBool::new(false),
        }
    }

    /// Other settings, as after a reload. What has been sent stays counted.
    pub fn configure(&self, settings: Settings) {
        let mut state = self.lock();
        if state.settings != settings {
            state.settings = settings;
            state.machine.configure(settings);
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
        let fresh = || Arc::new(Self::new(self.name.clone(), settings, self.clock, key));
        let budget = apart.entry(key).or_insert_with(fresh).clone();
        drop(apart);
        budget.configure(settings);
        budget
    }

    /// A place for one request of `asker`, now or within `patience`; and what it waited for, if it did.
    pub(super) async fn take(
        self: &Arc<Self>,
        asker: Asker,
        patience: Duration,
    ) -> Result<(Flight, Option<Held>), Held> {
        let started = self.clock.now();
        let (mut place, by) = match self.line_up(asker, patience, started) {
            Lined::Up(place, by) => (place, by),
            Lined::Through(flight) => return Ok((flight, None)),
            Lined::Refused(held) => return Err(held),
        };
        self.drive();
        if let Ok(Ok(flight)) = timeout(patience, &mut place.turn).await {
            return Ok((flight, Some(Held { by, wait: self.clock.now().since(started) })));
        }
        drop(place);
        let now = self.clock.now();
        Err(self.lock().machine.held(&asker, by, now))
    }

    /// A place whatever the budget says, and what would have held the request.
    pub(super) fn take_only_observing(&self, asker: &Asker) -> (Flight, Option<Hold>) {
        let now = self.clock.now();
        self.lock().machine.ask_only_observing(asker, now)
    }

    /// The head of an answer has come. Tells what holds the credential from now on where the limiter refused the request.
    pub(super) fn answered(&self, flight: &Flight, status: StatusCode, fields: &HeaderMap) -> Option<Held> {
        let (verdict, told) = headers::read(status, fields, std::time::SystemTime::now());
        if told.absurd && !self.absurd.swap(true, Ordering::Relaxed) {
            tracing::warn!(credential = &*self.name, "Cal.com's rate limit headers make no sense; they are ignored");
        }
        let now = self.clock.now();
        let mut state = self.lock();
        let held = state.machine.answered(flight, verdict, &told, now);
        self.change(&mut state);
        held
    }

    /// A request was sent, and nothing more will be known of it.
    pub(super) fn lost(&self, flight: &Flight, within: Duration) {
        let deadline = self.clock.now().after(within);
        let mut state = self.lock();
        state.machine.lost(flight, deadline);
        self.change(&mut state);
    }

    /// A request was not sent after all.
    pub(super) fn unsent(&self, flight: &Flight) {
        let mut state = self.lock();
        state.machine.unsent(flight);
        self.change(&mut state);
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

    /// Lets go all that may. Tells when the next may, if time alone will tell.
    fn let_go(&self, state: &mut State) -> Option<Tick> {
        let now = self.clock.now();
        loop {
            match state.machine.next(now) {
                Next::Go(ticket, flight) => {
                    let unwanted = match state.waiting.remove(&ticket) {
                        Some(sender) => sender.send(flight).err(),
                        None => Some(flight),
                    };
                    if let Some(flight) = unwanted {
                        state.machine.unsent(&flight);
                    }
                }
                Next::At(at) => return Some(at),
                Next::Idle => return None,
            }
        }
    }

    fn line_up(self: &Arc<Self>, asker: Asker, patience: Duration, now: Tick) -> Lined {
        let mut state = self.lock();
        match state.machine.ask(&asker, patience, now) {
            Asked::Go(flight) => Lined::Through(flight),
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
        if state.driven || state.waiting.is_empty() {
            return;
        }
        state.driven = true;
        drop(state);
        let driver = Driver(self.clone());
        tokio::spawn(async move {
            while let Some(wait) = driver.turn() {
                let changed = driver.0.changed.notified();
                match wait {
                    Some(wait) => drop(timeout(wait, changed).await),
                    None => changed.await,
                }
            }
        });
    }
}

/// What came of asking.
enum Lined {
    /// It waits, and for what.
    Up(Place, Hold),
    Through(Flight),
    Refused(Held),
}

/// The task that lets go those whose turn it is, while any wait. It ends with the worker that it runs on; then the next
/// request that waits starts another.
struct Driver(Arc<Budget>);

impl Driver {
    /// Lets go all that may. Tells how long nothing will change by itself, or `None` where nobody waits any more.
    #[expect(clippy::option_option, reason = "nobody waits, or they wait for an answer, or for a time")]
    fn turn(&self) -> Option<Option<Duration>> {
        let mut state = self.0.lock();
        let next = self.0.let_go(&mut state);
        if state.waiting.is_empty() {
            state.driven = false;
            return None;
        }
        Some(next.map(|at| at.since(self.0.clock.now())))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.lock().driven = false;
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
            state.machine.unsent(&flight);
            self.budget.change(&mut state);
        }
    }
}
