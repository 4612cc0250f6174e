//! State of one renewable credential in this process: the token in use, and its remaining life.
//!
//! The request path reads the state, and never waits while a token is valid. `refresh` writes it. The lifetime is measured on
//! the monotonic clock from receipt, so a change of the wall clock does not end it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::credential::RenewalMethod;
use crate::credential::lifecycle::{due_after, used_until};
use crate::credential::rejections::Rejections;
use crate::credential::stored_token::{RecordName, StoredCredential, TokenPair};
use crate::refusal::Refusal;
use crate::time::{MonoTime, nanoseconds};

/// Maximum wait of a request for a renewal, 45 s. With the default timeouts a renewal rarely takes longer.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(45);

/// Reason why a credential cannot be loaded or renewed at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewalError {
    /// The token store has no record of it.
    Absent,
    /// The token store, or the record, cannot be read or written.
    Store(String),
    /// The call to Cal.com failed, or its response has no new pair.
    Upstream(String),
}

impl std::fmt::Display for RenewalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str("nothing is stored for it"),
            Self::Store(why) | Self::Upstream(why) => f.write_str(why),
        }
    }
}

/// State of a credential in this process.
#[derive(Debug, Clone, Default)]
pub struct TokenState {
    /// Number of the pair; 0 if there is none yet.
    pub generation: u64,
    /// Value of `Authorization`.
    pub bearer: Option<HeaderValue>,
    /// For an API key that replaced the configured one, its hash. Cal.com counts the new key separately.
    pub replacing: Option<u128>,
    /// Time at which the token was received.
    pub received: MonoTime,
    /// Time from which the token is due for renewal.
    pub due: Option<MonoTime>,
    /// Time until which the token is sent.
    pub until: Option<MonoTime>,
    /// Whether a renewal has started and its outcome is unknown.
    pub renewing: bool,
    /// Whether the previous pair is still kept, because this one is not confirmed yet.
    pub unproven: bool,
    /// Whether the token was renewed because Cal.com rejected the previous one.
    pub by_refusal: bool,
    /// Reason why only a login helps.
    pub needs_login: Option<Arc<str>>,
    /// Current error, and the end of the back-off after it.
    pub error: Option<(RenewalError, MonoTime)>,
    /// Consecutive failures.
    pub failures: u32,
    /// Number of the last refresh request that is done; 0 before the first one.
    pub checks: u64,
    /// Time of the last check.
    pub checked_at: MonoTime,
}

/// Readiness of a credential for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Use the token.
    Use,
    /// Use the token, and renew it in the background.
    UseAndRenew,
    /// Wait until the token is loaded or renewed.
    Wait,
    /// Only a login helps.
    NeedsLogin,
    /// There is no valid token, and no renewal before this back-off ends.
    Unavailable(Duration),
}

impl TokenState {
    /// Creates the state from a record. `received` is the time at which this process received the current pair, if it did.
    /// Otherwise the wall clock gives its age, `age`. `jitter` is from -1 to 1.
    pub fn of(entry: &StoredCredential, received: Option<MonoTime>, age: Duration, now: MonoTime, jitter: f64) -> Self {
        let lifetime = entry.current.as_ref().and_then(|pair| pair.lifetime);
        // A token is never older than its lifetime, even if the wall clock was set.
        let age = lifetime.map_or(age, |lifetime| age.min(lifetime));
        let received = received.unwrap_or(MonoTime(now.0.saturating_sub(nanoseconds(age))));
        // The monotonic clock of this process started after the token was received. The time before it shortens the lifetime.
        let spent = if received.0 == 0 { age.saturating_sub(Duration::from_nanos(now.0)) } else { Duration::ZERO };
        let after = |life: Duration| MonoTime(received.0.saturating_add(nanoseconds(life.saturating_sub(spent))));
        Self {
            generation: entry.generation,
            bearer: entry.current.as_ref().map(|pair: &TokenPair| pair.access.header("Bearer ")),
            replacing: entry.replacing_key(),
            received,
            due: lifetime.map(|lifetime| after(due_after(lifetime, jitter))),
            until: lifetime.map(|lifetime| after(used_until(lifetime))),
            renewing: entry.pending.is_some(),
            unproven: entry.previous.is_some(),
            needs_login: entry.needs_login.as_deref().map(Arc::from),
            ..Self::default()
        }
    }

    /// Returns whether `entry` is a record that replaced the one of this state. Generations start again in a new record.
    pub fn is_replaced_by(&self, entry: &StoredCredential) -> bool {
        self.generation > entry.generation || (self.generation == entry.generation && !self.has_token_of(entry))
    }

    /// Returns whether the token is that of `entry`.
    pub fn has_token_of(&self, entry: &StoredCredential) -> bool {
        let stored = entry.current.as_ref().map(|pair| pair.access.header("Bearer "));
        self.generation == entry.generation && self.bearer == stored
    }

    /// Returns the time since the token was received.
    pub fn age(&self, now: MonoTime) -> Duration {
        Duration::from_nanos(now.0.saturating_sub(self.received.0))
    }

    /// Returns whether the token may be sent.
    pub fn is_good(&self, now: MonoTime) -> bool {
        self.bearer.is_some() && self.until.is_none_or(|until| now < until)
    }

    /// Returns whether the token is due for renewal.
    pub fn is_due(&self, now: MonoTime) -> bool {
        self.due.is_some_and(|due| now >= due)
    }

    /// Returns the rest of the back-off after a failure.
    pub fn backoff(&self, now: MonoTime) -> Duration {
        let until = self.error.as_ref().map_or(0, |(_, until)| until.0);
        Duration::from_nanos(until.saturating_sub(now.0))
    }

    /// Returns whether the back-off after a failure has not ended.
    pub fn is_backing_off(&self, now: MonoTime) -> bool {
        !self.backoff(now).is_zero()
    }

    /// Returns the readiness for a request.
    pub fn readiness(&self, now: MonoTime) -> Readiness {
        if self.is_good(now) {
            let renew = self.is_due(now) && !self.is_backing_off(now) && self.needs_login.is_none();
            return if renew { Readiness::UseAndRenew } else { Readiness::Use };
        }
        match self.backoff(now) {
            _ if self.needs_login.is_some() => Readiness::NeedsLogin,
            Duration::ZERO => Readiness::Wait,
            rest => Readiness::Unavailable(rest),
        }
    }

    /// Returns the name of the state, for metrics and `/readyz`.
    pub fn state_name(&self, now: MonoTime) -> &'static str {
        match () {
            () if self.needs_login.is_some() => "needs-login",
            () if self.checks == 0 => "loading",
            () if matches!(self.error, Some((RenewalError::Absent, _))) => "needs-login",
            () if self.is_good(now) && self.error.is_some() => "degraded",
            () if self.error.is_some() => "unavailable",
            () if !self.is_good(now) => "expired",
            () if self.is_due(now) => "due",
            () => "fresh",
        }
    }
}

/// Job for the task that renews credentials.
#[derive(Debug)]
pub enum Job {
    /// Reads the record of a credential again, and renews the credential if that is due.
    Refresh(Arc<TokenHandle>),
    /// Stores a pair from a response of Cal.com, and sends whether that succeeded.
    Store(Arc<TokenHandle>, TokenPair, oneshot::Sender<bool>),
}

/// Handle of one renewable credential, shared by all workers and kept across reloads.
#[derive(Debug)]
pub struct TokenHandle {
    /// Name of its record.
    pub name: RecordName,
    /// Renewal method. A reload may change it.
    pub renewal_method: ArcSwap<RenewalMethod>,
    /// Lock that allows one renewal at a time.
    pub renewal_lock: tokio::sync::Mutex<()>,
    /// Whether a request has used the credential since the last renewal.
    pub used: AtomicBool,
    /// Requests for which a renewed token does not help.
    pub rejections: Rejections,
    current: watch::Sender<Arc<TokenState>>,
    /// Number of refresh requests so far.
    requested: AtomicU64,
    /// Number of the last request that the refresh task has claimed.
    claimed: AtomicU64,
    /// Whether a job for this credential is in the queue.
    is_queued: AtomicBool,
    refused: AtomicU64,
    worked: AtomicU64,
    jobs: mpsc::UnboundedSender<Job>,
}

impl TokenHandle {
    pub(super) fn new(name: RecordName, renewal_method: RenewalMethod, jobs: mpsc::UnboundedSender<Job>) -> Arc<Self> {
        Arc::new(Self {
            name,
            renewal_method: ArcSwap::from_pointee(renewal_method),
            renewal_lock: tokio::sync::Mutex::default(),
            used: AtomicBool::new(false),
            rejections: Rejections::default(),
            current: watch::Sender::new(Arc::default()),
            requested: AtomicU64::new(0),
            claimed: AtomicU64::new(0),
            is_queued: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            worked: AtomicU64::new(0),
            jobs,
        })
    }

    /// Returns the current state.
    pub fn current(&self) -> Arc<TokenState> {
        self.current.borrow().clone()
    }

    /// Publishes a new state and wakes all requests that wait for one.
    pub fn publish(&self, token: TokenState) {
        self.current.send_replace(Arc::new(token));
    }

    /// Requests a check and, if it is due, a renewal. Returns the number of this request.
    pub fn request_refresh(self: &Arc<Self>) -> u64 {
        let time = self.requested.fetch_add(1, Ordering::AcqRel) + 1;
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            let _ = self.jobs.send(Job::Refresh(self.clone()));
        }
        time
    }

    /// Marks all refresh requests so far as claimed.
    pub fn claim(&self) {
        self.is_queued.swap(false, Ordering::AcqRel);
        self.claimed.store(self.requested.load(Ordering::Acquire), Ordering::Release);
    }

    /// Returns the number of the last refresh request that is claimed.
    pub fn claimed(&self) -> u64 {
        self.claimed.load(Ordering::Acquire)
    }

    /// Returns the latest generation whose token Cal.com rejected.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Acquire)
    }

    /// Returns the latest generation whose token Cal.com accepted.
    pub fn worked(&self) -> u64 {
        self.worked.load(Ordering::Acquire)
    }

    /// Forgets which generations Cal.com rejected and accepted, because they belong to a record that was replaced.
    pub fn reset(&self) {
        self.refused.store(0, Ordering::Release);
        self.worked.store(0, Ordering::Release);
    }

    /// Records that Cal.com rejected the token of `generation`, so that it is renewed although it is not due.
    pub(super) fn reject(&self, generation: u64) {
        self.refused.fetch_max(generation, Ordering::AcqRel);
    }

    /// Records that Cal.com accepted the token of this state.
    pub(super) fn confirm(self: &Arc<Self>, token: &TokenState) {
        if token.unproven && self.worked.fetch_max(token.generation, Ordering::AcqRel) < token.generation {
            let _ = self.request_refresh();
        }
    }

    /// Requests a check and waits for the first check that starts after this call.
    pub(super) async fn wait_refreshed(self: &Arc<Self>) -> Arc<TokenState> {
        self.used.store(true, Ordering::Relaxed);
        let mut news = self.current.subscribe();
        let time = self.request_refresh();
        match timeout(REFRESH_TIMEOUT, news.wait_for(|token| token.checks >= time)).await {
            Ok(Ok(token)) => token.clone(),
            _ => self.current(),
        }
    }

    /// Sends a pair from a response to the task that stores it. Returns whether the pair is stored.
    pub(super) async fn capture(self: &Arc<Self>, pair: TokenPair) -> bool {
        let (stored, answer) = oneshot::channel();
        let sent = self.jobs.send(Job::Store(self.clone(), pair, stored));
        sent.is_ok() && matches!(timeout(REFRESH_TIMEOUT, answer).await, Ok(Ok(true)))
    }

    /// Returns the refusal for a request without a valid token.
    pub(super) fn refusal(&self, token: &TokenState, now: MonoTime) -> Refusal {
        let credential: Arc<str> = self.name.to_string().into();
        match &token.error {
            _ if token.needs_login.is_some() => Refusal::CredentialNeedsLogin { credential },
            Some((RenewalError::Absent, _)) if self.name.user.is_some() => Refusal::UnknownManagedUser,
            Some((RenewalError::Absent, _)) => Refusal::CredentialNeedsLogin { credential },
            Some((error, _)) => {
                let retry_after = token.backoff(now);
                Refusal::CredentialUnavailable { credential, why: error.to_string().into(), retry_after }
            }
            None => {
                let why = "its renewal has not ended".into();
                Refusal::CredentialUnavailable { credential, why, retry_after: Duration::from_secs(1) }
            }
        }
    }

    /// Returns whether the credential is renewed when that is due. A managed user's is renewed only if callers act for the
    /// user, because there may be many users.
    pub fn is_wanted(&self) -> bool {
        self.name.user.is_none() || self.used.load(Ordering::Relaxed)
    }

    /// Returns whether calgate can renew the credential.
    pub fn is_renewable(&self) -> bool {
        !matches!(**self.renewal_method.load(), RenewalMethod::Key { .. })
    }

    /// Returns the name of the state. An API key without a newer one in the store is used as configured. An expired token of
    /// a managed user for whom no caller acts is not an error: the next request renews it.
    pub fn state_name(&self, now: MonoTime) -> &'static str {
        let token = self.current();
        match token.state_name(now) {
            "expired" if !self.is_wanted() => "due",
            state if self.is_renewable() => state,
            _ if token.error.is_some() => "degraded",
            _ => "fresh",
        }
    }
}
