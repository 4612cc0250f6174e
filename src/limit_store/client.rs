//! Client of the limit store: a timeout, a circuit breaker and a backlog in front of an implementation.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::limit_store::backlog::{Backlog, UsageReport};
use crate::limit_store::circuit_breaker::{BreakerState, CircuitBreaker};
use crate::limit_store::peers::PeerCount;
use crate::limit_store::{
    AcquireRequest, Acquired, CallError, CallFuture, Charge, FailureMode, HeartbeatReply, Limit, LimitStore, Member,
    ReplayedRequest, RequestOutcome, Unavailable, reconnect,
};
use crate::ratelimit::Quota;
use crate::ratelimit::parts::Part;
use crate::time::{Clock, MonoTime};

/// Delay of a timer that shows a stall of this process. The reply may have arrived meanwhile.
const STALL_DELAY: Duration = Duration::from_millis(10);

/// Maximum number of further waits for one call after stalls of this process.
const MAX_STALLS: u32 = 4;

/// Limit store as all workers of a gateway use it.
#[derive(Debug)]
pub struct LimitStoreClient {
    pub(super) store: Arc<dyn LimitStore>,
    /// Rule for buckets while the store is unavailable.
    pub failure_mode: FailureMode,
    /// Name of this gateway in the store. Each start has another one.
    pub gateway: String,
    timeout: Duration,
    pub(super) clock: Clock,
    pub(super) backlog: Backlog,
    breaker: Mutex<CircuitBreaker>,
    state: watch::Sender<BreakerState>,
    /// Wakes the supervisor of the connection.
    pub(super) changed: Notify,
    /// Runtime for calls that no request waits for.
    runtime: OnceLock<Handle>,
    calls: AtomicU64,
    failures: AtomicU64,
    losses: AtomicU64,
    peers: PeerCount,
    was_shared: AtomicBool,
}

/// Values for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreStats {
    /// State of the circuit breaker.
    pub state: BreakerState,
    /// Number of calls.
    pub calls: u64,
    /// Number of calls that failed or took too long.
    pub failures: u64,
    /// Number of times that the circuit breaker opened.
    pub losses: u64,
    /// Number of gateways on the store.
    pub gateways: u32,
}

impl LimitStoreClient {
    /// Creates a client of `store` that has not connected yet. A call may take `timeout`.
    pub fn new(store: Arc<dyn LimitStore>, failure_mode: FailureMode, timeout: Duration) -> Self {
        let clock = Clock::start();
        let id = uuid::Uuid::new_v4();
        let breaker = CircuitBreaker::new(clock.now(), id.as_u64_pair().1);
        Self {
            store,
            failure_mode,
            gateway: id.simple().to_string(),
            timeout,
            clock,
            backlog: Backlog::default(),
            state: watch::channel(breaker.state()).0,
            breaker: Mutex::new(breaker),
            changed: Notify::new(),
            runtime: OnceLock::new(),
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            peers: PeerCount::default(),
            was_shared: AtomicBool::new(false),
        }
    }

    /// Starts the thread that supervises the connection, and waits until the first attempt to connect has ended. After a
    /// loss, gateways have `recover_within` to replay their requests.
    ///
    /// # Errors
    /// Reason why the thread cannot start. A store that does not reply is not an error, because it may come later.
    pub fn start(self: &Arc<Self>, recover_within: Duration) -> Result<(), String> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        drop(self.runtime.set(runtime.handle().clone()));
        let (client, (tried, first)) = (self.clone(), mpsc::channel());
        let supervise = move || runtime.block_on(reconnect::supervise(&client, recover_within, &tried));
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(supervise);
        thread.map_err(|e| format!("cannot start the thread of the limit store: {e}"))?;
        let _ = first.recv();
        Ok(())
    }

    /// Returns whether this gateway has shared limits at any time since its start.
    pub(crate) fn was_shared(&self) -> bool {
        self.was_shared.load(Ordering::Relaxed)
    }

    /// Returns the longest time that a call may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns the number of gateways on this store, this one included.
    pub fn gateways(&self) -> u32 {
        self.peers.count()
    }

    /// Records the number of gateways that the store reported for one budget.
    pub fn observe_peers(&self, gateways: u32) {
        self.peers.observe(gateways, self.clock.now());
    }

    /// Returns whether the store decides: the circuit breaker is closed.
    pub fn is_enabled(&self) -> bool {
        self.state() == BreakerState::Closed
    }

    /// Returns whether the store replies. This includes the time in which gateways replay their requests.
    pub fn is_available(&self) -> bool {
        !matches!(self.state(), BreakerState::Open { .. })
    }

    /// Subscribes to the state of the circuit breaker.
    pub fn watch(&self) -> watch::Receiver<BreakerState> {
        self.state.subscribe()
    }

    /// Returns the values for the metrics.
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            state: self.state(),
            calls: self.calls.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            losses: self.losses.load(Ordering::Relaxed),
            gateways: self.gateways(),
        }
    }

    /// Spawns a task that no request waits for. Returns false before [`Self::start`].
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        self.runtime.get().map(|runtime| runtime.spawn(task)).is_some()
    }

    /// Charges one token of this gateway's `part` of a bucket.
    ///
    /// # Errors
    /// Time until that part has a token.
    pub fn charge_share(&self, key: &str, quota: Quota, part: Quota) -> Result<(), Duration> {
        self.backlog.charge_share(key, quota, part, self.clock.now())
    }

    /// Records a token that was charged without the store. The supervisor reports it as soon as possible.
    pub fn report_later(&self, key: &str, quota: Quota) {
        self.backlog.record(key, quota, self.clock.now());
        self.changed.notify_one();
    }

    /// Calls [`LimitStore::acquire`]. Waits for a late reply, because it decides about a request.
    pub async fn acquire(
        &self,
        limit: Limit<'_>,
        member: Member<'_>,
        request: AcquireRequest,
        charge: Option<Charge<'_>>,
    ) -> Result<(Acquired, Part), Unavailable> {
        self.call_with_grace(self.store.acquire(limit, member, request, charge)).await
    }

    /// Calls [`LimitStore::charge`]. Waits for a late reply, because it decides about a request.
    pub async fn charge(&self, charge: Charge<'_>) -> Result<Result<Duration, Duration>, Unavailable> {
        self.call_with_grace(self.store.charge(charge)).await
    }

    /// Calls [`LimitStore::settle`].
    pub async fn settle(&self, limit: Limit<'_>, request: u64, outcome: RequestOutcome) -> Result<(), Unavailable> {
        self.call(self.store.settle(limit, &self.gateway, request, outcome)).await
    }

    /// Calls [`LimitStore::heartbeat`].
    pub async fn heartbeat(
        &self,
        limit: Limit<'_>,
        member: Member<'_>,
        epoch: u64,
    ) -> Result<HeartbeatReply, Unavailable> {
        self.call(self.store.heartbeat(limit, member, epoch)).await
    }

    /// Calls [`LimitStore::join`].
    pub async fn join(
        &self,
        limit: Limit<'_>,
        member: Member<'_>,
        joins: bool,
        replayed: &[ReplayedRequest],
    ) -> Result<u32, Unavailable> {
        self.call(self.store.join(limit, member, joins, replayed)).await
    }

    /// Calls [`LimitStore::leave`].
    pub async fn leave(&self, keys: &str, member: Member<'_>) -> Result<(), Unavailable> {
        self.call(self.store.leave(keys, member)).await
    }

    /// Calls [`LimitStore::report`].
    pub(super) async fn report(&self, usage: &UsageReport) -> Result<(), Unavailable> {
        self.call(self.store.report(usage)).await
    }

    pub(super) fn state(&self) -> BreakerState {
        *self.state.borrow()
    }

    /// Waits for the reply to a call until its timeout.
    async fn call<T>(&self, mut call: CallFuture<'_, T>) -> Result<T, Unavailable> {
        self.record_reply(&mut call).await.unwrap_or(Err(Unavailable))
    }

    /// Waits for the reply to a call that decides about a request. After the timeout the call counts as failed, but only its
    /// reply says whether it charged a token. So this waits once more as long, unless the circuit breaker opens.
    async fn call_with_grace<T>(&self, mut call: CallFuture<'_, T>) -> Result<T, Unavailable> {
        if let Some(reply) = self.record_reply(&mut call).await {
            return reply;
        }
        let mut states = self.watch();
        let opened = async { drop(states.wait_for(|state| matches!(state, BreakerState::Open { .. })).await) };
        tokio::select! {
            biased;
            late = timeout(self.timeout, call) => late.map_err(|_| Unavailable)?.map_err(|_| Unavailable),
            () = opened => Err(Unavailable),
        }
    }

    /// Waits for a reply, and records whether it came in time. Returns `None` if it did not. A process that was stopped has
    /// not seen a reply that came meanwhile, so it waits again.
    async fn record_reply<T>(&self, call: &mut CallFuture<'_, T>) -> Option<Result<T, Unavailable>> {
        let mut stalls = 0;
        let reply = loop {
            let started = self.clock.now();
            let reply = timeout(self.timeout, call.as_mut()).await;
            let stalled = reply.is_err() && self.clock.now().since(started) > self.timeout + STALL_DELAY;
            if !stalled || stalls == MAX_STALLS {
                break reply;
            }
            stalls += 1;
        };
        match reply {
            Ok(Ok(reply)) => {
                self.record_call(None);
                Some(Ok(reply))
            }
            Ok(Err(CallError::NotConnected)) => Some(Err(Unavailable)),
            Ok(Err(CallError::Failed(reason))) => {
                self.record_call(Some(&reason));
                Some(Err(Unavailable))
            }
            Err(_) => {
                self.record_call(Some(&format!("no reply within {} ms", self.timeout.as_millis())));
                None
            }
        }
    }

    /// Counts a call. The first failure that opens the circuit breaker is logged.
    fn record_call(&self, fault: Option<&str>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.failures.fetch_add(u64::from(fault.is_some()), Ordering::Relaxed);
        let opened = self.update_breaker(|breaker, now| breaker.record_call(fault.is_none(), now));
        if let Some(fault) = fault.filter(|_| opened) {
            self.losses.fetch_add(1, Ordering::Relaxed);
            self.store.disconnect();
            let store = self.store.servers();
            if self.failure_mode == FailureMode::Closed {
                tracing::error!(store, fault, "limit store unavailable; rejecting consumers (on_loss = closed)");
            } else {
                tracing::warn!(store, fault, "limit store unavailable; each gateway limits on its own");
            }
        }
    }

    /// Records that limits are shared from now on, and closes the circuit breaker.
    pub(super) fn resume(&self) {
        self.was_shared.store(true, Ordering::Relaxed);
        self.update_breaker(|breaker, _| breaker.close());
    }

    /// Updates the circuit breaker, and announces a new state.
    pub(super) fn update_breaker<T>(&self, update: impl FnOnce(&mut CircuitBreaker, MonoTime) -> T) -> T {
        let mut breaker = self.breaker.lock();
        let before = breaker.state();
        let result = update(&mut breaker, self.clock.now());
        if breaker.state() != before {
            self.state.send_replace(breaker.state());
            self.changed.notify_one();
        }
        result
    }
}
