//! The limit store: buckets and budgets that several gateways share through Redis or Valkey.
//!
//! Beside the path: `limit` and `budget` ask it where `[limit_store]` is configured. A request costs one round trip, in which its
//! bucket and its budget are decided as one ([`scripts`], on the server's clock), or two where they are not in the same place
//! there or the budget has no say; what became of it is told afterwards and not waited for. A call without an answer [`WITHIN`] has failed, and a [`circuit_breaker`] stands in front of them all. Each
//! budget knows how to go on by itself while the store does not answer (`budget::membership`), and what is taken from buckets
//! meanwhile is [`backlog`].

pub mod backlog;
pub mod circuit_breaker;
pub mod connection;
mod heartbeat_reply;
mod nodes;
pub mod peers;
mod reconnect;
pub mod scripts;

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use redis::RedisResult;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

pub use connection::Kind;

use crate::ratelimit::Quota;
use crate::secret::Secret;
use crate::time::{Clock, MonoTime};
use backlog::Owed;
use circuit_breaker::{Breaker, State};
use connection::{Address, Link};
use peers::Gateways;
use scripts::Scripts;

/// A call without an answer by then has failed, if `limit_store.timeout` does not say. A request whose fate it decides is waited with once
/// more as long.
pub const WITHIN: Duration = Duration::from_millis(50);

/// A timer that fires so much late shows that this process did not run, and not that the store was late.
const STALLED: Duration = Duration::from_millis(10);

/// So many times at most a call is waited for again after that.
const MOST_STALLS: u32 = 4;

/// What becomes of the consumers' buckets while the store cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLoss {
    /// Each gateway has a whole bucket for each consumer, as it would have without a store.
    #[default]
    Local,
    /// Each has an equal part of it.
    Share,
    /// Nobody gets through.
    Closed,
}

/// The store does not answer; who asked goes on without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoAnswer;

/// The store, as all of a gateway's workers use it.
#[derive(Debug)]
pub struct SharedStore {
    address: Address,
    scripts: Scripts,
    /// What becomes of buckets while it cannot be asked.
    pub on_loss: OnLoss,
    /// This gateway's name there; another one after each start.
    pub gateway: String,
    within: Duration,
    clock: Clock,
    owed: Owed,
    link: Mutex<Option<Link>>,
    breaker: Mutex<Breaker>,
    state: watch::Sender<State>,
    /// Wakes the keeper.
    changed: Notify,
    /// Where that runs for which nobody waits.
    runtime: OnceLock<Handle>,
    calls: AtomicU64,
    failures: AtomicU64,
    losses: AtomicU64,
    gateways: Gateways,
    /// Whether limits have been shared at any time since the start.
    was_shared: AtomicBool,
}

/// How it stands, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// The breaker's state.
    pub state: State,
    /// Calls made.
    pub calls: u64,
    /// Those that failed or took too long.
    pub failures: u64,
    /// How often the store was given up.
    pub losses: u64,
    /// Gateways on it, as was last heard.
    pub gateways: u32,
}

impl SharedStore {
    /// A store that has not been asked anything. `file` is where `urls` come from, if it is a file.
    ///
    /// # Errors
    /// What of the addresses cannot be used.
    pub fn new(
        urls: &Secret,
        file: Option<&Path>,
        kind: &Kind,
        ca_file: Option<&Path>,
        on_loss: OnLoss,
        within: Duration,
    ) -> Result<Self, String> {
        let clock = Clock::start();
        let id = uuid::Uuid::new_v4();
        let breaker = Breaker::new(clock.now(), id.as_u64_pair().1);
        Ok(Self {
            address: Address::new(urls, file, kind, ca_file, within)?,
            within,
            scripts: Scripts::default(),
            on_loss,
            gateway: id.simple().to_string(),
            clock,
            owed: Owed::default(),
            link: Mutex::default(),
            state: watch::channel(breaker.state()).0,
            breaker: Mutex::new(breaker),
            changed: Notify::new(),
            runtime: OnceLock::new(),
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            gateways: Gateways::default(),
            was_shared: AtomicBool::new(false),
        })
    }

    /// Starts the thread that keeps the connection, and waits for its first attempt to be over.
    ///
    /// # Errors
    /// Why the thread cannot be started. A store that does not answer is no error: it may come later.
    pub fn start(self: &Arc<Self>, recover_within: Duration) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        drop(self.runtime.set(runtime.handle().clone()));
        let (store, (tried, first)) = (self.clone(), std::sync::mpsc::channel());
        let keep = move || runtime.block_on(reconnect::keep(&store, recover_within, &tried));
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(keep);
        thread.map_err(|e| format!("the store's thread could not be started: {e}"))?;
        let _ = first.recv();
        Ok(())
    }

    /// Whether limits have been shared at any time since the start: then a store that recovers has been lost before.
    pub(crate) fn was_shared(&self) -> bool {
        self.was_shared.load(Ordering::Relaxed)
    }

    /// A call without an answer by then has failed.
    pub fn within(&self) -> Duration {
        self.within
    }

    /// Gateways on this store, as was last heard.
    pub fn gateways(&self) -> u32 {
        self.gateways.count()
    }

    /// A budget has heard of so many gateways on its credential.
    pub fn heard_of(&self, gateways: u32) {
        self.gateways.heard(gateways, self.clock.now());
    }

    /// Whether it is asked at all.
    pub fn is_asked(&self) -> bool {
        *self.state.borrow() == State::Closed
    }

    /// Whether it answers: also while it is still told what it has missed.
    pub fn answers(&self) -> bool {
        !matches!(*self.state.borrow(), State::Open { .. })
    }

    /// Its state, and news of it.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// How it stands.
    pub fn figures(&self) -> Figures {
        Figures {
            state: *self.state.borrow(),
            calls: self.calls.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            losses: self.losses.load(Ordering::Relaxed),
            gateways: self.gateways(),
        }
    }

    /// Does what nobody waits for. Answers whether it can: whether the store was started.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        self.runtime.get().map(|runtime| runtime.spawn(task)).is_some()
    }

    /// One call. Where the store is not asked, or does not answer in time, who calls is told at once.
    pub async fn call<T, F>(&self, ask: impl FnOnce(Link) -> F) -> Result<T, NoAnswer>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let link = self.lock_link().clone().ok_or(NoAnswer)?;
        self.noted(ask(link)).await.unwrap_or(Err(NoAnswer))
    }

    /// A call that decides on a request. One that is late has failed, but whether it has taken a token nobody knows before
    /// its answer: that is waited for once more as long, unless the store is given up before.
    pub async fn decide<T, F>(&self, ask: impl FnOnce(Link) -> F) -> Result<T, NoAnswer>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let link = self.lock_link().clone().ok_or(NoAnswer)?;
        let mut answer = pin!(ask(link));
        if let Some(answer) = self.noted(answer.as_mut()).await {
            return answer;
        }
        let mut news = self.watch();
        let given_up = async { drop(news.wait_for(|state| matches!(state, State::Open { .. })).await) };
        tokio::select! {
            biased;
            late = timeout(self.within, answer) => late.map_err(|_| NoAnswer)?.map_err(|_| NoAnswer),
            () = given_up => Err(NoAnswer),
        }
    }

    /// A token of a bucket was handed out without asking; it is told as soon as can be.
    pub fn owe(&self, key: &str, quota: Quota) {
        self.owed.add(key, quota, self.clock.now());
        self.changed.notify_one();
    }

    /// Takes a token of this gateway's `part` of a bucket.
    ///
    /// # Errors
    /// How long none is there.
    pub fn take_part(&self, key: &str, quota: Quota, part: Quota) -> Result<(), Duration> {
        self.owed.take_part(key, quota, part, self.clock.now())
    }

    /// What it is asked with.
    pub fn scripts(&self) -> &Scripts {
        &self.scripts
    }

    /// `None` where no answer has come in time. A process that was stopped has not seen an answer that came meanwhile.
    async fn noted<T>(&self, answer: impl Future<Output = RedisResult<T>>) -> Option<Result<T, NoAnswer>> {
        let mut answer = pin!(answer);
        let mut stalls = 0;
        let answer = loop {
            let asked = self.clock.now();
            let answer = timeout(self.within, answer.as_mut()).await;
            let stalled = answer.is_err() && self.clock.now().since(asked) > self.within + STALLED;
            if !stalled || stalls == MOST_STALLS {
                break answer;
            }
            stalls += 1;
        };
        let fault = match &answer {
            Ok(Ok(_)) => None,
            Ok(Err(fault)) => Some(fault.category().to_owned()),
            Err(_) => Some(format!("no answer within {} ms", self.within.as_millis())),
        };
        self.note(fault.as_ref());
        Some(answer.ok()?.map_err(|_| NoAnswer))
    }

    fn note(&self, fault: Option<&String>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.failures.fetch_add(u64::from(fault.is_some()), Ordering::Relaxed);
        let opened = self.change(|breaker, now| breaker.called(fault.is_none(), now));
        if let Some(fault) = fault.filter(|_| opened) {
            self.losses.fetch_add(1, Ordering::Relaxed);
            *self.lock_link() = None;
            let store = &self.address;
            if self.on_loss == OnLoss::Closed {
                tracing::error!(%store, fault, "the store is not asked any more: consumers are refused until it answers");
            } else {
                tracing::warn!(%store, fault, "the store is not asked any more: each gateway limits by itself");
            }
        }
    }

    /// Changes the breaker, and tells everyone where that changed its state.
    fn change<T>(&self, change: impl FnOnce(&mut Breaker, MonoTime) -> T) -> T {
        let mut breaker = self.breaker.lock();
        let before = breaker.state();
        let answer = change(&mut breaker, self.clock.now());
        if breaker.state() != before {
            self.state.send_replace(breaker.state());
            self.changed.notify_one();
        }
        answer
    }

    fn lock_link(&self) -> MutexGuard<'_, Option<Link>> {
        self.link.lock()
    }
}
